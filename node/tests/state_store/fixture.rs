//! Stores that the first version of the format has written are read for ever.
//!
//! A fixture is a whole state directory as text, without its zeros: `file <name> <length>`, then `<offset> <up to 32
//! bytes>` in hexadecimal digits. `MILLSTREAM_WRITE_FIXTURES=1` writes those that are missing; none is ever replaced.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use millstream_node::config::Engine;
use millstream_node::storage::verify_all;

use crate::support::{ENGINES, all, files, name_of, open, pattern, put, temporary};

const CHUNK: usize = 32;

fn fixture(engine: Engine) -> PathBuf {
    let name = format!("tests/fixtures/store-1/{}.txt", name_of(engine));
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// What the fixtures hold.
fn rows() -> BTreeMap<Vec<u8>, Bytes> {
    let mut rows: BTreeMap<Vec<u8>, Bytes> =
        (0..12_usize).map(|row| (vec![1, row as u8, 0, 0xff], pattern(row * row * 9, row))).collect();
    rows.insert(Vec::new(), Bytes::new());
    rows.insert(vec![0, 1], "what a checkpoint covers".into());
    rows.insert(b"in two pieces".to_vec(), pattern(25_000, 7));
    rows
}

fn write(state: &Path, engine: Engine) {
    let (_dir, store) = open(state, engine).expect("opens");
    store.commit(vec![put(b"gone", "soon"), put(b"in two pieces", "not yet")]).expect("commits");
    let mut batch: Vec<_> = rows().into_iter().map(|(key, value)| (key, Some(value))).collect();
    batch.push((b"gone".to_vec(), None));
    store.commit(batch).expect("commits");
}

fn to_text(state: &Path) -> String {
    let mut text = String::new();
    for path in files(state) {
        let content = std::fs::read(&path).expect("reads");
        let name = path.strip_prefix(state).expect("below it");
        writeln!(text, "file {} {}", name.display(), content.len()).expect("writes");
        for (nth, chunk) in content.chunks(CHUNK).enumerate().filter(|(_, chunk)| chunk.iter().any(|byte| *byte != 0)) {
            write!(text, "{:x} ", nth * CHUNK).expect("writes");
            chunk.iter().for_each(|byte| write!(text, "{byte:02x}").expect("writes"));
            text.push('\n');
        }
    }
    text
}

fn from_text(text: &str, state: &Path) {
    let mut file: Option<(PathBuf, Vec<u8>)> = None;
    let write = |(path, content): (PathBuf, Vec<u8>)| {
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("creates");
        std::fs::write(path, content).expect("writes");
    };
    for line in text.lines() {
        let parts: Vec<&str> = line.split(' ').collect();
        match parts[..] {
            ["file", name, length] => {
                let next = (state.join(name), vec![0; length.parse().expect("a number")]);
                if let Some(done) = file.replace(next) {
                    write(done);
                }
            }
            [offset, digits] => {
                let offset = usize::from_str_radix(offset, 16).expect("a number");
                let (_, content) = file.as_mut().expect("a file comes first");
                for at in 0..digits.len() / 2 {
                    content[offset + at] = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("two digits");
                }
            }
            _ => panic!("{line}"),
        }
    }
    write(file.expect("there is a file"));
}

#[test]
fn a_store_of_the_first_version_opens() {
    for engine in ENGINES {
        let path = fixture(engine);
        if !path.exists() && std::env::var_os("MILLSTREAM_WRITE_FIXTURES").is_some() {
            let directory = temporary();
            write(directory.path(), engine);
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("creates");
            std::fs::write(&path, to_text(directory.path())).expect("writes");
        }
        let directory = temporary();
        from_text(&std::fs::read_to_string(&path).expect("the fixture is there"), directory.path());
        if engine == Engine::Sled {
            // sled wants to find it; directories without files are not in the text.
            std::fs::create_dir_all(directory.path().join("1/sled/blobs")).expect("creates");
        }
        let (_dir, store) = open(directory.path(), engine).expect("opens");
        assert_eq!(all(&*store), rows(), "{engine:?}");
        assert_eq!(verify_all(&*store, |_| {}).expect("reads").damaged, Vec::<String>::new());
        store.commit(vec![put(b"new", "row")]).expect("commits");
        assert_eq!(store.get(b"new").expect("reads"), Some("row".into()));
    }
}

/// The memory engine's file holds what every engine is given, so it shows if rows are written differently.
#[test]
fn rows_are_still_written_as_in_the_first_version() {
    let directory = temporary();
    write(directory.path(), Engine::Memory);
    let expected = std::fs::read_to_string(fixture(Engine::Memory)).expect("the fixture is there");
    assert_eq!(to_text(directory.path()), expected);
}
