//! A disk that hangs. openraft's heartbeats do not touch the leader's own disk, so a leader whose fsync does not return
//! would stay leader and commit nothing that needs it. It hands over; and a node whose disk stays stuck stops, so that
//! somebody looks.

use std::time::Duration;

use super::{Replica, bootstrap};

/// How often to look.
const INTERVAL: Duration = Duration::from_secs(1);
/// A leader hands over after this long without an fsync returning. Stalls of 0.8 s were seen on healthy disks.
const HAND_OVER_AFTER: Duration = Duration::from_secs(5);
/// Any node stops after this long.
const STOP_AFTER: Duration = Duration::from_secs(60);

/// Watches the log's flusher while the replica runs.
pub(crate) fn watch_disk(replica: &Replica) {
    let replica = replica.clone();
    let mut ready = replica.inner.ready.subscribe();
    tokio::spawn(async move {
        let (mut durable, mut stalled) = (0, Duration::ZERO);
        loop {
            tokio::select! {
                biased;
                stopping = ready.wait_for(|ready| !ready) => { drop(stopping); return }
                () = tokio::time::sleep(INTERVAL) => {}
            }
            let log = &replica.inner.shared.log;
            let now = log.durable_index();
            // A full disk does not hang: the log goes on when there is room.
            let waiting = now < log.last_index() && !log.waits_for_room();
            stalled = if waiting && now == durable { stalled + INTERVAL } else { Duration::ZERO };
            durable = now;
            if STOP_AFTER <= stalled {
                replica.inner.shared.world.abort.abort("the disk has not finished a write for a minute");
                return;
            }
            if HAND_OVER_AFTER <= stalled {
                tracing::warn!(seconds = stalled.as_secs(), "the disk does not finish a write");
                bootstrap::hand_over(&replica).await;
            }
        }
    });
}
