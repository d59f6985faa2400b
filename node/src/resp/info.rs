//! INFO: the node in the words that Redis's clients and dashboards look for.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::arguments::is_word;
use super::door::Door;
use crate::replica::{Leadership, Role};

/// The version of Redis whose streams these are.
pub(super) const REDIS_VERSION: &str = "8.10.0";

type Section = (&'static str, fn(&Door) -> String);

const SECTIONS: [Section; 8] = [
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Persistence", persistence),
    ("Stats", stats),
    ("Replication", replication),
    ("Cluster", cluster),
    ("Keyspace", keyspace),
];

/// The sections asked for; all of them if none is, or all are.
pub(super) fn info(door: &Door, asked: &[Bytes], refused_connections: u64) -> String {
    let all = ["ALL", "EVERYTHING", "DEFAULT"];
    let wants_all = asked.is_empty() || asked.iter().any(|name| all.iter().any(|word| is_word(name, word)));
    let mut text = String::new();
    for (name, section) in SECTIONS {
        if wants_all || asked.iter().any(|asked| is_word(asked, name)) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            let _ = write!(text, "# {name}\r\n{}", section(door));
            if name == "Stats" {
                let _ = write!(text, "rejected_connections:{refused_connections}\r\n");
            }
        }
    }
    text
}

fn lines(facts: &[(&str, String)]) -> String {
    facts.iter().map(|(name, value)| format!("{name}:{value}\r\n")).collect()
}

fn server(door: &Door) -> String {
    let uptime = door.since.elapsed().as_secs();
    let port = door.options.listen.as_deref().and_then(|address| address.rsplit(':').next()).unwrap_or("0");
    lines(&[
        ("redis_version", REDIS_VERSION.into()),
        ("redis_mode", "standalone".into()),
        ("millstream_version", env!("CARGO_PKG_VERSION").into()),
        ("os", std::env::consts::OS.into()),
        ("arch_bits", usize::BITS.to_string()),
        ("process_id", std::process::id().to_string()),
        ("run_id", door.run_id.clone()),
        ("tcp_port", port.into()),
        ("uptime_in_seconds", uptime.to_string()),
        ("uptime_in_days", (uptime / 86_400).to_string()),
    ])
}

fn clients(door: &Door) -> String {
    lines(&[
        ("connected_clients", door.clients.count().to_string()),
        ("maxclients", door.options.connections_max.to_string()),
        ("blocked_clients", door.clients.blocked().to_string()),
    ])
}

fn memory(door: &Door) -> String {
    let used = resident_bytes();
    lines(&[
        ("used_memory", used.to_string()),
        ("used_memory_rss", used.to_string()),
        ("mem_clients_normal", door.clients.held().to_string()),
        ("maxmemory", "0".into()),
        ("maxmemory_policy", "noeviction".into()),
    ])
}

/// What the system says that this process holds; 0 where it does not say.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or(0) * 1_024
}

fn persistence(door: &Door) -> String {
    let status = door.front().replica.status();
    lines(&[
        ("loading", "0".into()),
        ("aof_enabled", "1".into()),
        ("aof_last_write_status", "ok".into()),
        ("millstream_last_log_index", status.last_log_index.to_string()),
        ("millstream_durable_index", status.durable_index.to_string()),
        ("millstream_applied_index", status.applied_index.to_string()),
        ("millstream_checkpoint_index", status.checkpoint_index.to_string()),
    ])
}

fn stats(door: &Door) -> String {
    lines(&[
        ("total_connections_received", door.clients.ever().to_string()),
        ("total_commands_processed", door.commands.load(Ordering::Relaxed).to_string()),
        ("total_error_replies", door.errors.load(Ordering::Relaxed).to_string()),
    ])
}

/// Every node takes every command, so each is what clients call a master.
fn replication(door: &Door) -> String {
    let status = door.front().replica.status();
    let others = status.members.iter().filter(|member| member.node_id != status.node_id);
    let role = match status.role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
    };
    let leader = match door.front().replica.leadership() {
        Leadership::Leader { .. } => status.node_id,
        Leadership::Follower { leader } => leader.node_id,
        Leadership::NoLeader => 0,
    };
    let mut facts = vec![
        ("role", "master".to_owned()),
        ("connected_slaves", others.clone().count().to_string()),
        ("master_repl_offset", status.applied_index.to_string()),
        ("millstream_node_id", status.node_id.to_string()),
        ("millstream_role", role.to_owned()),
        ("millstream_leader_id", leader.to_string()),
        ("millstream_term", status.term.to_string()),
    ];
    let nodes: Vec<String> = others
        .map(|member| {
            let stored = member.matched_index.map_or_else(|| "?".to_owned(), |index| index.to_string());
            format!("id={},address={},voter={},stored={stored}", member.node_id, member.client_address, member.voter)
        })
        .collect();
    facts.extend(nodes.into_iter().map(|node| ("millstream_member", node)));
    lines(&facts)
}

fn cluster(_: &Door) -> String {
    lines(&[("cluster_enabled", "0".into())])
}

fn keyspace(door: &Door) -> String {
    match door.front().replica.with_state(millstream_streams::State::stream_count) {
        0 => String::new(),
        streams => lines(&[("db0", format!("keys={streams},expires=0,avg_ttl=0"))]),
    }
}
