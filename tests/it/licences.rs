//! What we depend on may be used where MIT OR Apache-2.0 may.

use std::process::Command;

const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "OpenSSL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

#[test]
fn every_dependency_has_a_permissive_licence() {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--all-features", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100, "the list is whole");
    let refused: Vec<_> = packages
        .iter()
        .filter(|package| !package["license"].as_str().is_some_and(is_allowed))
        .map(|package| format!("{}: {}", package["name"], package["license"]))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

/// Reads an SPDX expression: one of the alternatives is enough, all joined parts are needed, brackets first.
fn is_allowed(expression: &str) -> bool {
    let mut text = expression.replace('/', " OR ");
    while let Some(end) = text.find(')') {
        let Some(start) = text[..end].rfind('(') else { return false };
        let inner = if is_allowed(&text[start + 1..end]) { "MIT" } else { "refused" };
        text.replace_range(start..=end, inner);
    }
    let all = |alternative: &str| alternative.split(" AND ").all(|part| ALLOWED.contains(&part.trim()));
    text.split(" OR ").any(all)
}

#[test]
fn expressions_are_read_as_they_are_meant() {
    for allowed in
        ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "ISC AND (Apache-2.0 OR ISC)", "Apache-2.0 WITH LLVM-exception"]
    {
        assert!(is_allowed(allowed), "{allowed}");
    }
    for refused in ["GPL-3.0", "MIT AND GPL-3.0", "(GPL-3.0 OR AGPL-3.0) AND MIT", "", "MPL-2.0"] {
        assert!(!is_allowed(refused), "{refused}");
    }
}
