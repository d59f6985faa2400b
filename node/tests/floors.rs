//! The floors of ARCHITECTURE.md: a module names only what lies below it, and a library stays in its rooms.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules of the server by floor, from the ground. Those of one floor don't know each other.
const FLOORS: [&[&str]; 8] = [
    &["world", "types", "watch"],
    &["config"],
    &["storage", "network"],
    &["replica"],
    &["front"],
    &["api", "resp"],
    &["server", "offline"],
    &["main", "lib"],
];

/// Libraries and the only modules that may name them.
const ROOMS: [(&str, &[&str]); 4] = [
    ("openraft", &["types", "storage", "network", "replica"]),
    ("sled", &["storage"]),
    ("redb", &["storage"]),
    // `world` names one trait of tonic's, which a connection must have.
    ("tonic", &["world", "network", "api", "server"]),
];

/// What the core's manifest must not name.
const NOT_IN_THE_CORE: [&str; 9] =
    ["tokio", "sled", "redb", "tonic", "openraft", "rand", "turmoil", "prost", "futures"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Each file of the server with the name of its top module and its code without comments.
fn modules() -> Vec<(String, PathBuf, String)> {
    let src = root().join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(10 < files.len(), "the sources are found");
    let module = |path: &Path| {
        let first = path.strip_prefix(&src).expect("below src").components().next().expect("a name");
        first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
    };
    let code = |path: &Path| {
        let text = fs::read_to_string(path).expect("UTF-8");
        text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
    };
    files.into_iter().map(|path| (module(&path), path.clone(), code(&path))).collect()
}

fn floor(module: &str) -> usize {
    FLOORS.iter().position(|floor| floor.contains(&module)).unwrap_or_else(|| panic!("`{module}` stands on no floor"))
}

/// The modules named after `crate::` in a piece of code.
fn named(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        // Not the tail of another path or name.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$' || c == ':') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => names.push(identifier(rest)),
            Some(list) => {
                let mut depth = 0;
                let mut item = String::new();
                for c in list.chars() {
                    match c {
                        '}' if depth == 0 => break,
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 0 => names.push(identifier(std::mem::take(&mut item).trim())),
                        _ => {}
                    }
                    if c != ',' {
                        item.push(c);
                    }
                }
                names.push(identifier(item.trim()));
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn modules_name_only_what_lies_below() {
    for (module, path, code) in modules() {
        for name in named(&code) {
            let allowed = name == module || floor(&name) < floor(&module);
            assert!(allowed, "{} names `{name}`, which does not lie below `{module}`", path.display());
        }
    }
}

#[test]
fn libraries_stay_in_their_rooms() {
    for (module, path, code) in modules() {
        for (library, rooms) in ROOMS {
            let uses = code.contains(&format!("{library}::")) && !rooms.contains(&module.as_str());
            assert!(!uses, "{} names `{library}`, which belongs to {rooms:?}", path.display());
        }
    }
}

#[test]
fn the_core_knows_no_machine() {
    let manifest = fs::read_to_string(root().join("streams/Cargo.toml")).expect("the core's manifest");
    let dependencies = manifest.split("[dev-dependencies]").next().expect("a first part");
    for library in NOT_IN_THE_CORE {
        assert!(!dependencies.lines().any(|line| line.starts_with(library)), "the core depends on `{library}`");
    }
}

#[test]
fn the_client_does_not_depend_on_the_server() {
    let manifest = fs::read_to_string(root().join("../client/Cargo.toml")).expect("the client's manifest");
    assert!(!manifest.contains("millstream-node"));
}

#[test]
fn the_scanner_sees_what_it_should() {
    assert_eq!(named("use crate::types::{A, B}; crate::world::X"), ["types", "world"]);
    assert_eq!(named("use crate::{types::{A, B}, world};"), ["types", "world"]);
    assert_eq!(named("$crate::x other_crate::y"), Vec::<String>::new());
}
