//! Whether calls are welcome, for load balancers and orchestrators (`grpc.health.v1`).
//!
//! The empty service name is the node: serving until it begins to stop. The names of the services say whether a call to
//! them can succeed: serving while a leader is known.

use millstream_proto::v1::{
    batch_service_server as batches, consumer_group_service_server as groups, session_service_server as sessions,
    stream_service_server as streams,
};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::{HealthReporter, health_reporter};

use crate::replica::{Leadership, Replica};

/// The name of the health service itself.
pub(super) const SERVICE_NAME: &str = tonic_health::pb::health_server::SERVICE_NAME;

/// The service, and where its answers come from.
pub(super) fn service() -> (HealthServer<impl Health>, HealthReporter) {
    let (reporter, service) = health_reporter();
    (service, reporter)
}

/// Reports what the replica says, until it stops.
pub(super) fn follow(replica: Replica, reporter: HealthReporter) {
    tokio::spawn(async move {
        loop {
            // Before the look, so that a change after it is not missed.
            let changed = replica.leadership_changed();
            let is_ready = replica.is_ready();
            let is_led = is_ready && replica.leadership() != Leadership::NoLeader;
            reporter.set_service_status("", serving(is_ready)).await;
            for name in [streams::SERVICE_NAME, groups::SERVICE_NAME, batches::SERVICE_NAME, sessions::SERVICE_NAME] {
                reporter.set_service_status(name, serving(is_led)).await;
            }
            if !is_ready {
                return;
            }
            changed.await;
        }
    });
}

fn serving(yes: bool) -> ServingStatus {
    if yes { ServingStatus::Serving } else { ServingStatus::NotServing }
}
