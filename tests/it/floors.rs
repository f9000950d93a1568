//! Arrows point down: what decides does not wait, read a clock or talk to a network.

use std::fs;
use std::path::Path;

#[test]
fn engine_and_providers_name_no_runtime_no_client_no_clock_and_nothing_above_them() {
    let forbidden = ["tokio", "reqwest", "hyper", "Instant::now", "SystemTime::now", "thread::sleep"];
    // Their own floors, and the words.
    let below = ["cost", "engine", "providers", "secret"];
    let mut files = 0;
    for folder in ["src/engine", "src/providers"] {
        visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut |path, text| {
            files += 1;
            // Examples in comments and tests may read a clock; code may not.
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
                for word in forbidden {
                    assert!(!line.contains(word), "{} says {word}: {line}", path.display());
                }
                for name in line.split("crate::").skip(1) {
                    let name = name.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default();
                    assert!(below.contains(&name), "{} looks up: {line}", path.display());
                }
            }
        });
    }
    assert!(files > 10, "the folders are where this test looks");
}

fn visit(folder: &Path, check: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, check);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            check(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}
