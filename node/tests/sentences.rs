//! Whatever a start ends with, the operator is told what to do.

use std::io;

use millstream_node::replica::{self, RestoreError};
use millstream_node::server::StartError;
use millstream_node::storage::{DataDirError, StoreError, WalError};

fn io() -> io::Error {
    io::Error::other("the operating system says so")
}

/// One of each. Who adds a variant adds it here: the matches below name all there are.
fn wal_errors() -> Vec<WalError> {
    let (path, offset) = ("wal/1".into(), 512);
    let all = vec![
        WalError::Io { path: "wal".into(), source: io() },
        WalError::Corrupt { path: "wal/1".into(), offset, what: "a batch does not match its checksum" },
        WalError::Missing { path: "wal".into() },
        WalError::Inconsistent { path: "wal/1".into(), offset, what: "entry 5 does not follow".into() },
        WalError::Undecodable { path, offset, source: io() },
    ];
    for error in &all {
        match error {
            WalError::Io { .. }
            | WalError::Corrupt { .. }
            | WalError::Missing { .. }
            | WalError::Inconsistent { .. }
            | WalError::Undecodable { .. } => {}
        }
    }
    all
}

fn data_dir_errors() -> Vec<DataDirError> {
    let path = || "data".into();
    let (found, wanted) = ("a".to_owned(), "b".to_owned());
    let all = vec![
        DataDirError::InUse { path: path() },
        DataDirError::OtherNode { path: path(), found: 1, wanted: 2 },
        DataDirError::OtherCluster { path: path(), found, wanted },
        DataDirError::Foreign { path: path() },
        DataDirError::NotOne { path: path() },
        DataDirError::Damaged { path: path(), reason: "a checksum".into() },
        DataDirError::Io { path: path(), source: io() },
    ];
    for error in &all {
        match error {
            DataDirError::InUse { .. }
            | DataDirError::OtherNode { .. }
            | DataDirError::OtherCluster { .. }
            | DataDirError::Foreign { .. }
            | DataDirError::NotOne { .. }
            | DataDirError::Damaged { .. }
            | DataDirError::Io { .. } => {}
        }
    }
    all
}

fn store_errors() -> Vec<StoreError> {
    let all = vec![
        StoreError::Io(io()),
        StoreError::OtherEngine { found: "sled".into(), wanted: "redb" },
        StoreError::Corrupt { what: "a row".into() },
    ];
    for error in &all {
        match error {
            StoreError::Io(_) | StoreError::OtherEngine { .. } | StoreError::Corrupt { .. } => {}
        }
    }
    all
}

fn replica_errors() -> Vec<replica::StartError> {
    use replica::StartError;
    let (reason, problem, path) = ("a row".into(), "nobody answers".into(), "state".into());
    let mut all = vec![
        StartError::Log(io()),
        StartError::LogEndsEarly { applied: 9, last: 5 },
        StartError::Spool(io()),
        StartError::Undecodable("row 5".into()),
        StartError::Inconsistent("a stream without a head".into()),
        StartError::Rebuild { reason, first_index: 5, problem, path },
        StartError::Raft("it has stopped".into()),
    ];
    all.extend(store_errors().into_iter().map(StartError::Store));
    for error in &all {
        match error {
            StartError::Store(_)
            | StartError::Log(_)
            | StartError::LogEndsEarly { .. }
            | StartError::Spool(_)
            | StartError::Undecodable(_)
            | StartError::Inconsistent(_)
            | StartError::Rebuild { .. }
            | StartError::Raft(_)
            // Each has a text of its own.
            | StartError::Config(_) => {}
        }
    }
    all
}

fn start_errors() -> Vec<StartError> {
    let mut all = vec![
        StartError::Listen { address: "n1:7420".into(), error: io() },
        StartError::Services("no descriptor".into()),
    ];
    all.extend(wal_errors().into_iter().map(StartError::Wal));
    all.extend(data_dir_errors().into_iter().map(StartError::DataDir));
    all.extend(replica_errors().into_iter().map(StartError::Replica));
    for error in &all {
        match error {
            StartError::DataDir(_)
            | StartError::Wal(_)
            | StartError::Replica(_)
            | StartError::Listen { .. }
            | StartError::Services(_) => {}
        }
    }
    all
}

fn restore_errors() -> Vec<RestoreError> {
    let mut all = vec![
        RestoreError::Backup { path: "backup".into(), problem: "it is damaged".into() },
        RestoreError::NotEmpty { path: "data".into() },
        RestoreError::Io { path: "data".into(), source: io() },
    ];
    all.extend(wal_errors().into_iter().map(RestoreError::Wal));
    all.extend(data_dir_errors().into_iter().map(RestoreError::DataDir));
    all.extend(store_errors().into_iter().map(RestoreError::Store));
    for error in &all {
        match error {
            RestoreError::Backup { .. }
            | RestoreError::NotEmpty { .. }
            | RestoreError::DataDir(_)
            | RestoreError::Wal(_)
            | RestoreError::Store(_)
            | RestoreError::Io { .. } => {}
        }
    }
    all
}

#[test]
fn every_sentence_says_what_to_do() {
    const REMEDIES: [&str; 10] = [
        "start the node again",
        "start the version that wrote it",
        "start with",
        "new node id",
        "give the node an empty directory",
        "choose another address",
        "please report it",
        "take another backup",
        "restore again",
        "check",
    ];
    let ours = start_errors().iter().map(ToString::to_string).collect::<Vec<_>>();
    let all = ours.into_iter().chain(restore_errors().iter().map(ToString::to_string)).collect::<Vec<_>>();
    for sentence in &all {
        let tells = REMEDIES.iter().any(|remedy| sentence.contains(remedy))
            || sentence.contains("stop that one")
            || sentence.contains("name the directory");
        assert!(tells, "{sentence}");
        assert!(!sentence.ends_with('.') && !sentence.contains('\n') && !sentence.contains("  "), "{sentence}");
    }
    assert!(30 < all.len());
}
