//! `millstream-node verify` and `dump`: what they say of a sound directory and of a damaged one, and that they leave
//! both as they are.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use millstream_client::{Append, CreateGroup, EntryId, GroupPosition, ReadGroup};
use millstream_node::config::{Config, Engine};
use millstream_node::offline::{self, Dump, Part, Report, ToolError};
use millstream_node::storage::DataDirError;
use millstream_node::world::World;
use support::{Cluster, image, run, write_image};

const ENGINES: [Engine; 3] = [Engine::Sled, Engine::Redb, Engine::Memory];

fn small_node(config: &mut Config) {
    config.checkpoint.entries = 60;
    config.checkpoint.interval = std::time::Duration::from_millis(20);
    config.log.segment_bytes = 16 << 10;
}

/// A node with a log, a state, a group and pending entries, that ended without a word: the log goes on behind the state.
fn filled(engine: Engine) -> Cluster {
    let cluster = Cluster::start(1, |config| {
        small_node(config);
        config.engine = engine;
    });
    cluster.leader();
    let client = cluster.client([1]);
    run(async {
        client
            .create_group(CreateGroup::new("orders", "billing", GroupPosition::After(EntryId::MIN)).create_stream())
            .await
            .expect("created");
        for number in 0..350 {
            client.append(Append::to("orders").field("number", number.to_string())).await.expect("appended");
        }
        client.read_group(ReadGroup::new("billing", "ada").new_entries("orders").count(150)).await.expect("delivered");
    });
    let delivered = cluster.status(1).applied_index;
    run(async {
        for number in 350..420 {
            client.append(Append::to("orders").field("number", number.to_string())).await.expect("appended");
        }
    });
    cluster.eventually("a checkpoint of that", || (delivered <= cluster.status(1).checkpoint_index).then_some(()));
    // If another one is due, it is written before the last entry.
    std::thread::sleep(std::time::Duration::from_millis(100));
    run(async {
        client.append(Append::to("orders").field("note", "behind the checkpoint")).await.expect("appended");
    });
    cluster
}

/// The same, once the threads of a node that was killed in this process have ended.
fn quiet(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    loop {
        let before = image(path);
        std::thread::sleep(std::time::Duration::from_millis(300));
        if image(path) == before {
            return before;
        }
    }
}

fn verify(path: &Path) -> Report {
    offline::verify(&World::real(), path, None, &mut |_, _| ()).expect("can be checked")
}

fn damage(report: &Report) -> Vec<(&'static str, String)> {
    let of = |part: &offline::Checked| part.damage.iter().map(|what| (part.part, what.clone())).collect::<Vec<_>>();
    report.parts.iter().flat_map(of).collect()
}

fn count(report: &Report, part: &str, what: &str) -> u64 {
    let part = report.parts.iter().find(|checked| checked.part == part).expect("the part");
    part.counts.iter().find(|(name, _)| *name == what).expect("the count").1
}

fn dumped(path: &Path, part: Part, from: u64, limit: u64, json: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let what = Dump { part, from, limit, json };
    let mut keep = |line: &str| {
        lines.push(line.to_owned());
        true
    };
    offline::dump(&World::real(), path, None, what, &mut |_, _| (), &mut keep).expect("can be shown");
    lines
}

#[test]
fn a_sound_directory_is_found_sound_and_left_alone() {
    for engine in ENGINES {
        let mut cluster = filled(engine);
        let path = cluster.data_dir(1);
        let used = offline::verify(&World::real(), &path, None, &mut |_, _| ()).err();
        assert!(matches!(used, Some(ToolError::DataDir(DataDirError::InUse { .. }))), "{used:?}");

        cluster.kill(1);
        let before = quiet(&path);
        let report = verify(&path);
        assert_eq!(damage(&report), [], "{engine:?}");
        assert!(report.fine, "{report:#?}");
        assert!(350 < count(&report, "log", "entries"));
        assert!(0 < count(&report, "checkpoint", "log index"));
        assert!(0 < count(&report, "checkpoint", "proposals behind it"), "the log goes on behind the state");
        assert!(2 <= count(&report, "blocks", "blocks") && 5 < count(&report, "rows", "rows"), "{report:#?}");

        let rows = dumped(&path, Part::Store, 0, u64::MAX, false);
        assert!(!rows.iter().any(|row| row.contains("damaged")), "{rows:#?}");
        for expected in
            ["Coverage = [log_id: ", "Stream { name: ", "cluster_id: ", "\"number\"=\"0\"", "ada", "billing"]
        {
            assert!(rows.iter().any(|row| row.contains(expected)), "{expected} is in {rows:#?}");
        }
        let log = dumped(&path, Part::Log, 0, u64::MAX, false);
        for expected in ["CreateCluster", "vote term ", "Append", "ReadGroup", "membership ", "blank"] {
            assert!(log.iter().any(|line| line.contains(expected)), "{expected} is in {log:#?}");
        }
        let after = image(&path);
        let is_same = |file: &&PathBuf| before.get(*file) != after.get(*file);
        let changed: Vec<_> = before.keys().chain(after.keys()).filter(is_same).collect();
        assert_eq!(changed, Vec::<&PathBuf>::new(), "{engine:?}");
    }
}

#[test]
fn a_part_of_the_log_can_be_shown_as_json() {
    let mut cluster = filled(Engine::Memory);
    cluster.kill(1);
    let lines = dumped(&cluster.data_dir(1), Part::Log, 100, 3, true);
    let parsed: Vec<serde_json::Value> =
        lines.iter().map(|line| serde_json::from_str(line).expect("is JSON")).collect();
    assert_eq!(parsed.len(), 3);
    assert_eq!((&parsed[0]["index"], &parsed[0]["kind"]), (&100.into(), &"append".into()));
    let rows = dumped(&cluster.data_dir(1), Part::Store, 0, 5, true);
    assert!(rows.iter().all(|row| serde_json::from_str::<serde_json::Value>(row).is_ok()) && rows.len() == 5);
    assert!(dumped(&cluster.data_dir(1), Part::Identity, 0, 9, false)[0].starts_with("node 1, incarnation "));
}

#[test]
fn damage_is_found_wherever_it_is() {
    let mut cluster = filled(Engine::Memory);
    cluster.stop(1);
    let path = cluster.data_dir(1);
    for (name, content) in image(&path) {
        let file = path.join(name);
        if content.is_empty() {
            continue;
        }
        let mut changed = content.clone();
        // In the first half, as the last batch of a log is another matter; and not between two batches.
        let used: Vec<usize> = (0..content.len()).filter(|at| content[*at] != 0).collect();
        let at = used[used.len() / 2];
        changed[at] ^= 1;
        std::fs::write(&file, &changed).expect("writes");
        let report = verify(&path);
        assert!(!report.fine && report.is_damaged(), "byte {at} of {}: {report:#?}", file.display());
        std::fs::remove_file(&file).expect("removes");
        let report = verify(&path);
        // The last files of a log are made ready for later, and hold nothing.
        let may_go = file.extension().is_some_and(|extension| extension == "wal" || extension == "spare");
        assert!(!report.fine || may_go, "without {}: {report:#?}", file.display());
        std::fs::write(&file, &content).expect("writes");
    }
    assert!(verify(&path).fine);
}

#[test]
fn a_state_that_does_not_fit_its_log_is_damage() {
    let mut cluster = filled(Engine::Memory);
    cluster.kill(1);
    let path = cluster.data_dir(1);
    // An older log than the state.
    let wal = path.join("wal");
    let kept: Vec<_> = std::fs::read_dir(&wal).expect("lists").map(|entry| entry.expect("lists").path()).collect();
    for file in kept {
        std::fs::remove_file(file).expect("removes");
    }
    let report = verify(&path);
    assert!(!report.fine, "{report:#?}");
}

#[test]
fn a_state_that_was_installed_may_be_ahead_of_its_log() {
    let mut cluster = filled(Engine::Memory);
    cluster.kill(1);
    let path = cluster.data_dir(1);
    quiet(&path);
    let wal = path.join("wal");
    let older = image(&wal);
    cluster.boot(1).expect("it starts");
    cluster.leader();
    run(async {
        let client = cluster.client([1]);
        for number in 0..100 {
            client.append(Append::to("orders").field("number", number.to_string())).await.expect("appended");
        }
    });
    cluster.stop(1);
    std::fs::remove_dir_all(&wal).expect("removes");
    std::fs::create_dir(&wal).expect("creates");
    write_image(&wal, &older);
    let [(part, found)] = &damage(&verify(&path))[..] else { panic!("{:#?}", verify(&path)) };
    assert!(*part == "checkpoint" && found.contains("but the log ends at"), "{found}");
    let refused = cluster.boot(1).expect_err("it has lost entries").to_string();
    assert!(refused.contains("the log ends at entry") && refused.contains("put the log's files back"), "{refused}");

    // Between the switch to a snapshot's state and the purge of the log behind it, this is how it looks.
    let state = path.join("state");
    std::fs::rename(state.join("1"), state.join("2")).expect("renames");
    let line = "2 memory";
    let pointer = format!("{line} {:08x}\n", crc32c::crc32c(line.as_bytes()));
    std::fs::write(state.join("CURRENT"), pointer).expect("writes");
    let report = verify(&path);
    assert_eq!(damage(&report), [], "{report:#?}");
    assert!(report.fine && format!("{report:?}").contains("installed a snapshot"), "{report:#?}");
}

fn tool(arguments: &[&str], path: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream-node"));
    command.args(arguments).arg("--data-dir").arg(path).output().expect("runs")
}

#[test]
fn the_exit_code_says_how_it_went() {
    let mut cluster = filled(Engine::Sled);
    let path = cluster.data_dir(1);
    let in_use = tool(&["verify"], &path);
    assert_eq!(in_use.status.code(), Some(2));
    let said = String::from_utf8_lossy(&in_use.stderr).into_owned();
    assert!(said.contains("is in use by another process: stop that one"), "{said}");

    cluster.stop(1);
    let fine = tool(&["verify"], &path);
    let said = String::from_utf8_lossy(&fine.stdout).into_owned();
    assert_eq!(fine.status.code(), Some(0), "{said}");
    assert!(said.contains("all is well"), "{said}");
    println!("{said}");

    let identity = path.join("identity");
    let content = std::fs::read_to_string(&identity).expect("reads");
    std::fs::write(&identity, content.replace("\"node_id\": 1", "\"node_id\": 7")).expect("writes");
    let damaged = tool(&["verify", "--json"], &path);
    assert_eq!(damaged.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&damaged.stdout).expect("is JSON");
    assert_eq!(report["fine"], false);

    let nothing = tempfile::tempdir().expect("a directory");
    assert_eq!(tool(&["verify"], nothing.path()).status.code(), Some(2));
    assert_eq!(tool(&["dump", "log"], nothing.path()).status.code(), Some(2));
    assert_eq!(std::fs::read_dir(nothing.path()).expect("lists").count(), 0);

    let shown = tool(&["dump", "log", "--limit", "2"], &path);
    assert_eq!((shown.status.code(), String::from_utf8_lossy(&shown.stdout).lines().count()), (Some(0), 2));
}
