//! The driver's eye on the nodes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millstream_client::{Error, NodeStatus};
use tokio::task::JoinSet;

use super::worker::connect;
use crate::entropy::{Rng, Time};
use crate::net::SimNet;

/// What the nodes last said of themselves, and when. Cheap to clone.
///
/// The observer asks them over links that no scenario cuts: it is the driver's eye, not a client.
#[derive(Clone, Default)]
pub struct Observer(Arc<Mutex<BTreeMap<String, (Duration, NodeStatus)>>>);

impl Observer {
    /// Asks every node at `endpoints` in turn, for ever.
    pub async fn run(self, net: SimNet, endpoints: Vec<String>, time: Time, seed: u64) -> Result<(), Error> {
        let mut tasks = JoinSet::new();
        for endpoint in endpoints {
            let rng = Rng::stream(seed, &format!("observer {endpoint}"));
            let client = connect(&net, vec![endpoint.clone()], rng, true)?.with_deadline(Duration::from_millis(500));
            let (observer, time) = (self.clone(), time.clone());
            tasks.spawn(async move {
                loop {
                    if let Ok(status) = client.status(&endpoint).await {
                        let mut seen = observer.0.lock().unwrap_or_else(PoisonError::into_inner);
                        seen.insert(endpoint.clone(), (time.elapsed(), status));
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        }
        tasks.join_all().await;
        Ok(())
    }

    /// What the node at `endpoint` said at `since` or later.
    pub fn status(&self, endpoint: &str, since: Duration) -> Option<NodeStatus> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(endpoint).filter(|(at, _)| since <= *at).map(|(_, status)| status.clone())
    }
}
