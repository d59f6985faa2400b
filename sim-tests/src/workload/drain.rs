//! Before the work and after it: groups are made, emptied, and everything is read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use millstream_client::{Client, Error, Range};

use super::perform::{id, seen};
use super::worker::{Worker, connect, insist};
use super::{HOT, KEYED, Workload};
use crate::checks::{Ending, GroupEnd};
use crate::entropy::Rng;
use crate::history::{Action, After, Entry, GroupName, Id, Outcome};

/// How often the driver's wishes are looked at, and groups that are not empty.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A node that is well answers a read within this.
const SERVES_WITHIN: Duration = Duration::from_secs(4);

/// Makes the groups that will be drained, and whatever else must be there before the clients come.
pub(super) async fn set_up(workload: &Workload) -> Result<(), Error> {
    let mut worker = Worker::new(workload, "setup", true)?;
    let groups = workload.groups().into_iter();
    let actions = groups.map(|group| Action::CreateGroup { group, after: After::Id(Id::MIN) });
    let keys = (0 < workload.load.keyed).then(|| Action::Configure { stream: KEYED.into() });
    for action in actions.chain(keys) {
        loop {
            match worker.call(action.clone()).await.outcome {
                Outcome::Done(_) => break,
                // An attempt whose answer was lost has made it.
                Outcome::NothingChanged { reason, .. } if reason == "GROUP_EXISTS" => break,
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }
    Ok(())
}

/// Waits until every group has delivered everything, and nothing is pending.
pub(super) async fn until_empty(workload: &Workload) -> Result<(), Error> {
    let client = client(workload)?;
    // Twice, because what somebody has left in the middle may come late.
    let mut rounds = 0;
    while rounds < 2 {
        tokio::time::sleep(LOOK_EVERY).await;
        rounds += 1;
        for group in workload.groups() {
            workload.wait_for(format!("news of {group:?}"));
            let end = group_end(&client, &group).await;
            if (end.pending, end.lag) != (0, Some(0)) {
                workload.wait_for(format!("{group:?}: {end:?}"));
                rounds = 0;
            }
        }
    }
    Ok(())
}

/// Reads everything as often as the driver wants it.
pub(super) async fn read_as_told(workload: &Workload) -> Result<(), Error> {
    let client = client(workload)?;
    loop {
        if (workload.readings() as u64) < workload.readings.load(Ordering::Relaxed) {
            let mut ending = Ending::default();
            for stream in workload.streams() {
                workload.wait_for(format!("the entries of {stream}"));
                ending.streams.insert(stream.clone(), whole(&client, &stream).await);
            }
            for group in workload.groups() {
                ending.groups.insert(group.clone(), group_end(&client, &group).await);
            }
            workload.wait_for("each node to serve".into());
            ending.serving = serving(workload).await?;
            workload.lock().push(ending);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The nodes that answer a linearizable read themselves, without another try elsewhere.
async fn serving(workload: &Workload) -> Result<BTreeSet<String>, Error> {
    let mut asked = Vec::new();
    for endpoint in &workload.endpoints {
        let name = endpoint.split(':').next().unwrap_or_default().to_owned();
        let rng = Rng::stream(workload.seed, &format!("client of {name}"));
        let client = connect(&workload.net, vec![endpoint.clone()], rng, false)?.with_deadline(SERVES_WITHIN);
        asked.push(async move {
            let answer = client.range(Range::of(HOT).page_size(1)).await;
            answer.is_ok().then_some(name)
        });
    }
    Ok(futures::future::join_all(asked).await.into_iter().flatten().collect())
}

fn client(workload: &Workload) -> Result<Client, Error> {
    connect(&workload.net, workload.endpoints.clone(), Rng::stream(workload.seed, "client drain"), true)
}

async fn whole(client: &Client, stream: &str) -> Vec<Entry> {
    insist(async || {
        let entries: Vec<_> = client.range_all(Range::of(stream).page_size(200)).collect().await;
        let entries: Result<Vec<_>, _> = entries.into_iter().collect();
        Ok(entries?.into_iter().filter_map(seen).collect())
    })
    .await
}

async fn group_end(client: &Client, (stream, group): &GroupName) -> GroupEnd {
    let groups: BTreeMap<_, _> = insist(async || client.list_groups_all(stream).await)
        .await
        .into_iter()
        .map(|info| (info.group.clone(), info))
        .collect();
    match groups.get(group) {
        Some(info) => GroupEnd {
            start: Id::MIN,
            pending: info.pending,
            lag: info.lag,
            last_delivered: id(info.last_delivered_id),
        },
        // It was made, and nobody deletes it.
        None => GroupEnd { pending: u64::MAX, ..GroupEnd::default() },
    }
}
