//! CONFIG: what clients and their test suites ask for. Most of it is what the node is like, and stays so; a few settings may
//! be set because programs do, and have no effect, as there is nothing here that they are about.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::glob;
use crate::config::RespOptions;

/// Those that may be set: no slow log, no events, no evictions, no idle clients closed, no dumps, no scripts.
const WITHOUT_EFFECT: [&str; 12] = [
    "hash-max-listpack-entries",
    "hz",
    "latency-monitor-threshold",
    "lua-time-limit",
    "maxmemory",
    "maxmemory-policy",
    "notify-keyspace-events",
    "save",
    "slowlog-log-slower-than",
    "slowlog-max-len",
    "stream-node-max-bytes",
    "stream-node-max-entries",
];

/// The settings of a node.
#[derive(Debug)]
pub(super) struct Settings(Mutex<BTreeMap<&'static str, String>>);

impl Settings {
    pub(super) fn new(options: &RespOptions) -> Self {
        let port = options.listen.as_deref().and_then(|address| address.rsplit(':').next()).unwrap_or("0");
        let owned = [
            ("port", port.to_owned()),
            ("maxclients", options.connections_max.to_string()),
            ("maxmemory-clients", options.clients_bytes_max.to_string()),
            ("proto-max-bulk-len", options.argument_bytes_max.to_string()),
        ];
        let fixed = [
            ("appendfsync", "always"),
            ("appendonly", "yes"),
            ("cluster-enabled", "no"),
            ("databases", "1"),
            ("hash-max-listpack-entries", "128"),
            ("hz", "10"),
            ("latency-monitor-threshold", "0"),
            ("lua-time-limit", "5000"),
            ("maxmemory", "0"),
            ("maxmemory-policy", "noeviction"),
            ("notify-keyspace-events", ""),
            ("requirepass", ""),
            ("save", ""),
            ("slowlog-log-slower-than", "-1"),
            ("slowlog-max-len", "0"),
            ("stream-node-max-bytes", "12288"),
            ("stream-node-max-entries", "100"),
            ("timeout", "0"),
        ];
        let fixed = fixed.into_iter().map(|(name, value)| (name, value.to_owned()));
        Self(Mutex::new(fixed.chain(owned).collect()))
    }

    /// Names and values of those that match one of the patterns, by name.
    pub(super) fn get<'p>(&self, patterns: impl Iterator<Item = &'p [u8]>) -> Vec<(String, String)> {
        let settings = self.settings();
        let mut found = BTreeMap::new();
        for pattern in patterns {
            let pattern = pattern.to_ascii_lowercase();
            let matching = settings.iter().filter(|(name, _)| glob::matches(&pattern, name.as_bytes()));
            found.extend(matching.map(|(name, value)| ((*name).to_owned(), value.clone())));
        }
        found.into_iter().collect()
    }

    /// Sets all of them, or none; then why.
    pub(super) fn set(&self, pairs: &[(&[u8], &[u8])]) -> Result<(), String> {
        let mut settings = self.settings();
        let mut changes = Vec::new();
        for (name, value) in pairs {
            let name = String::from_utf8_lossy(name).to_lowercase();
            let value = String::from_utf8_lossy(value).into_owned();
            let Some((known, current)) = settings.get_key_value(name.as_str()) else {
                return Err(format!("Unknown option or number of arguments for CONFIG SET - '{name}'"));
            };
            if *current != value && !WITHOUT_EFFECT.contains(known) {
                return Err(format!(
                    "CONFIG SET failed (possibly related to argument '{name}') - can't set immutable config"
                ));
            }
            changes.push((*known, value));
        }
        settings.extend(changes);
        Ok(())
    }

    fn settings(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_stay_what_they_are_unless_they_have_no_effect() {
        let settings = Settings::new(&RespOptions::default());
        let get = |pattern: &str| settings.get([pattern.as_bytes()].into_iter());
        assert_eq!(get("appendfsync"), [("appendfsync".into(), "always".into())]);
        assert_eq!(get("MAXM*").len(), 3);
        assert_eq!(get("no-such"), []);
        assert!(settings.set(&[(b"hz", b"20"), (b"appendfsync", b"no")]).is_err());
        assert_eq!(get("hz"), [("hz".into(), "10".into())], "all or none");
        assert_eq!(settings.set(&[(b"hz", b"20"), (b"appendfsync", b"always")]), Ok(()));
        assert_eq!(get("hz"), [("hz".into(), "20".into())]);
        assert!(settings.set(&[(b"no-such", b"1")]).is_err());
    }
}
