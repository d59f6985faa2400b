//! Producers and consumers of two groups while the leader dies. What is done about it are fred's own settings: when to
//! connect again, how often to send a command again whose reply did not come, and which errors mean "not now".

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fred::prelude::*;
use fred::types::config::ReconnectError;
use fred::types::streams::XReadResponse;
use tokio::time::sleep;

use crate::support::{Account, Entries, GROUPS, Outcome, Report, Setting, now_ms};

const STREAM: &str = "failover:stream";

async fn connect(setting: &Setting, turn: usize) -> Outcome<Client> {
    let client = setting
        .builder(turn)
        .set_policy(ReconnectPolicy::new_exponential(0, 20, 500, 2))
        .with_connection_config(|config| {
            config.max_command_attempts = 100;
            config.reconnect_errors = ["TRYAGAIN", "CLUSTERDOWN", "LOADING", "READONLY", "UNKNOWN", "UNBLOCKED"]
                .map(ReconnectError::Custom)
                .to_vec();
        })
        .build()?;
    client.init().await?;
    Ok(client)
}

pub async fn run(setting: &Setting, report: &mut Report) {
    let account = Arc::new(Account::new(setting.faults.clone()));
    match work(setting, &account).await {
        Ok((entries, left)) => account.verify(report, &entries, &left).await,
        Err(failure) => report.failure("failover", &failure.to_string()),
    }
}

/// What the stream holds in the end, and for each group what is pending and its lag.
type Left = (Vec<(String, u64)>, Vec<(String, i64, i64)>);

async fn work(setting: &Setting, account: &Arc<Account>) -> Outcome<Left> {
    let setup = connect(setting, 1).await?;
    let _: () = setup.flushall(false).await?;
    for group in GROUPS {
        let _: () = setup.xgroup_create(STREAM, group, "0", true).await?;
    }
    let producing = Arc::new(AtomicBool::new(true));
    let mut consumers = Vec::new();
    for group in GROUPS {
        for turn in [0, 2] {
            let client = connect(setting, turn).await?;
            let name = format!("consumer-{turn}");
            // Some are at the leader's door, and some wait through its end at another.
            let block_ms = if turn == 0 { 300 } else { 2000 };
            let consumer = Consumer { client, group, name, block_ms };
            consumers.push(tokio::spawn(consumer.run(account.clone(), producing.clone())));
        }
    }
    let mut producers = Vec::new();
    for turn in [0, 1] {
        producers.push(tokio::spawn(produce(connect(setting, turn).await?, account.clone(), turn as u64)));
    }
    for producer in producers {
        producer.await??;
    }
    producing.store(false, Ordering::Relaxed);
    for consumer in consumers {
        consumer.await??;
    }
    let entries: Entries = setup.xrange(STREAM, "-", "+", None).await?;
    let entries = entries.iter().map(|(id, fields)| Ok((id.clone(), fields["n"].parse()?)));
    let entries = entries.collect::<Outcome<_>>()?;
    let groups: Vec<std::collections::HashMap<String, Value>> = setup.xinfo_groups(STREAM).await?;
    let number = |of: &Value| of.as_i64().unwrap_or(-1);
    let left = groups.iter().map(|group| {
        let name = group["name"].as_string().unwrap_or_default();
        (name, number(&group["pending"]), number(&group["lag"]))
    });
    Ok((entries, left.collect()))
}

async fn produce(client: Client, account: Arc<Account>, turn: u64) -> Outcome {
    let mut number = turn;
    while !account.producer_done(turn, number) {
        account.in_time("a producer")?;
        let began = now_ms();
        let id: String = client.xadd(STREAM, false, None, "*", ("n", number)).await?;
        account.appended(turn, number, id, began)?;
        number += 2;
        sleep(Duration::from_millis(3)).await;
    }
    client.quit().await?;
    Ok(())
}

struct Consumer {
    client: Client,
    group: &'static str,
    name: String,
    block_ms: u64,
}

impl Consumer {
    async fn run(self, account: Arc<Account>, producing: Arc<AtomicBool>) -> Outcome {
        let Self { client, group, name, block_ms } = self;
        loop {
            account.in_time("a consumer")?;
            let reply: Value =
                client.xreadgroup(group, name.as_str(), Some(10), Some(block_ms), false, STREAM, ">").await?;
            // fred makes no empty map of a null.
            let reply: XReadResponse<String, String, String, String> =
                if reply.is_null() { XReadResponse::new() } else { reply.into_xread_response()? };
            let mut ids: Vec<String> = reply.into_values().flatten().map(|(id, _)| id).collect();
            let idle = ids.is_empty();
            if idle {
                // Entries whose delivery was lost on its way to a consumer, this one or another.
                let reply: (String, Entries, Vec<String>) =
                    client.xautoclaim(STREAM, group, name.as_str(), 1000, "0-0", Some(100), false).await?;
                ids = reply.1.into_iter().map(|(id, _)| id).collect();
            }
            if !ids.is_empty() {
                account.handled(group, &ids);
                let _: i64 = client.xack(STREAM, group, ids).await?;
            } else if !producing.load(Ordering::Relaxed) {
                let (pending, ..): (i64, Value, Value, Value) = client.xpending(STREAM, group, ()).await?;
                if pending == 0 {
                    client.quit().await?;
                    return Ok(());
                }
            }
        }
    }
}
