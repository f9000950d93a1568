//! Which names are names of one file, whatever links there are.

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// More links than that behind one another are a circle, as the system counts them.
const LINKS: usize = 40;

/// A file that a run reads or writes.
#[derive(Debug)]
pub(crate) struct Role<'a> {
    pub(crate) path: &'a Path,
    /// What people call it.
    pub(crate) name: &'static str,
    /// What to say where it is another file as well; `None` where it is only read.
    pub(crate) needs: Option<&'static str>,
}

/// That nothing is written to a file that is something else as well: what was there would be lost.
pub(crate) fn check(roles: &[Role<'_>]) -> Result<()> {
    for (index, role) in roles.iter().enumerate() {
        let Some(other) = roles[..index].iter().find(|other| same(other.path, role.path)) else { continue };
        if let Some(needs) = role.needs {
            bail!("{} is {}; {needs}", role.path.display(), other.name);
        }
    }
    Ok(())
}

/// Whether both are names of one file, which need not be there yet. Pipes and devices are no files: who names one twice
/// may mean it.
fn same(one: &Path, two: &Path) -> bool {
    let is_stream = |data: &Metadata| !data.is_file() && !data.is_dir();
    match (one.metadata(), two.metadata()) {
        (Ok(one), _) if is_stream(&one) => false,
        (Ok(first), Ok(second)) => is_one(&first, &second).unwrap_or_else(|| resolved(one) == resolved(two)),
        _ => resolved(one) == resolved(two),
    }
}

/// The name behind all links, also of a file that is not there yet.
pub(crate) fn resolved(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        if let Ok(there) = path.canonicalize() {
            return there;
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        match path.read_link() {
            Ok(target) => path = folder.join(target),
            Err(_) => return path.file_name().map_or(path.clone(), |name| folder.join(name)),
        }
    }
    path
}

/// Whether that open file is the one at `path`: it may have been removed or replaced.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let both = || -> io::Result<_> { Ok((file.metadata()?, path.metadata()?)) };
    both().is_ok_and(|(file, there)| is_one(&file, &there).unwrap_or(true))
}

/// `None` where the system does not tell.
#[cfg(unix)]
fn is_one(one: &Metadata, two: &Metadata) -> Option<bool> {
    use std::os::unix::fs::MetadataExt;
    Some((one.dev(), one.ino()) == (two.dev(), two.ino()))
}

#[cfg(not(unix))]
fn is_one(_: &Metadata, _: &Metadata) -> Option<bool> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn links_are_followed_to_files_that_are_there_and_to_those_that_are_not() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("sub")).unwrap();
        std::fs::write(path("there"), "").unwrap();
        symlink("there", path("link")).unwrap();
        symlink("../not yet", path("sub/dangling")).unwrap();
        symlink("dangling", path("sub/again")).unwrap();
        symlink("circle", path("circle")).unwrap();
        std::fs::hard_link(path("there"), path("hard")).unwrap();
        for (one, two) in [
            ("there", "link"),
            ("there", "sub/../there"),
            ("there", "hard"),
            ("not yet", "sub/dangling"),
            ("not yet", "sub/again"),
            ("circle", "circle"),
            ("sub", "sub/."),
        ] {
            assert!(same(&path(one), &path(two)), "{one} and {two}");
        }
        for (one, two) in [("there", "not yet"), ("sub/not yet", "not yet"), ("sub", "there"), ("circle", "there")] {
            assert!(!same(&path(one), &path(two)), "{one} and {two}");
        }
    }
}
