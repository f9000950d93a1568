//! Where a report goes: sure to find its place when it is finished.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tempfile::NamedTempFile;

use super::paths::resolved;
use super::report::Report;

/// The file of a report.
#[derive(Debug)]
pub(crate) struct ReportFile {
    /// As it was typed.
    path: PathBuf,
    open: Open,
}

#[derive(Debug)]
enum Open {
    /// It takes this place when it is whole.
    Beside(NamedTempFile, PathBuf),
    /// A pipe or a device, which a file must not take the place of.
    Stream(File),
}

impl ReportFile {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let cannot = || cannot(path);
        let open = match path.metadata() {
            Ok(there) if there.is_dir() => bail!("{}: it is a folder", cannot()),
            Ok(there) if !there.is_file() => {
                Open::Stream(OpenOptions::new().write(true).open(path).with_context(cannot)?)
            }
            _ => {
                // A link stays one.
                let place = resolved(path);
                let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty());
                Open::Beside(NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).with_context(cannot)?, place)
            }
        };
        Ok(Self { path: path.to_owned(), open })
    }

    pub(crate) fn write(self, report: &Report) -> Result<()> {
        let cannot = || cannot(&self.path);
        let mut text = serde_json::to_string_pretty(report).with_context(cannot)?;
        text.push('\n');
        match self.open {
            Open::Stream(mut stream) => stream.write_all(text.as_bytes()).with_context(cannot),
            Open::Beside(mut file, place) => {
                file.write_all(text.as_bytes()).with_context(cannot)?;
                // Temporary files are for their owner alone; a report is a file like any other.
                #[cfg(unix)]
                {
                    use std::os::unix::fs::PermissionsExt;
                    let mode = place.metadata().map_or(0o644, |there| there.permissions().mode());
                    file.as_file().set_permissions(PermissionsExt::from_mode(mode)).with_context(cannot)?;
                }
                file.persist(&place).map(drop).with_context(cannot)
            }
        }
    }
}

fn cannot(path: &Path) -> String {
    format!("cannot write the report {}", path.display())
}
