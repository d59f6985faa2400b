//! How do I share the work of a stream among workers, and lose none of it?
//!
//! ```text
//! cargo run -p millstream-client --example group_worker -- alice
//! millstream append jobs task=boil
//! ```
//!
//! Start several with different names; each entry goes to one of them. Kill one while it works: its entries are
//! pending, and the others take them over.

use std::time::Duration;

use millstream_client::{AutoClaim, Client, ClientOptions, CreateGroup, Entry, EntryId, Error, ErrorReason};
use millstream_client::{GroupPosition, ReadGroup};

const STREAM: &str = "jobs";
const GROUP: &str = "workers";
/// Work that takes longer than this is taken for lost.
const LOST_AFTER: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<(), Error> {
    let worker = std::env::args().nth(1).unwrap_or_else(|| "alice".to_owned());
    let client = Client::connect(ClientOptions::default())?;

    let create = CreateGroup::new(STREAM, GROUP, GroupPosition::After(EntryId::MIN)).create_stream();
    match client.create_group(create).await {
        Ok(_) => {}
        Err(error) if error.reason() == Some(ErrorReason::GroupExists) => {}
        Err(error) => return Err(error),
    }

    // What we were given before we last stopped comes first.
    let mine = ReadGroup::new(GROUP, &worker).pending_after(STREAM, EntryId::MIN);
    for delivered in client.read_group(mine).await?.streams.into_iter().flat_map(|delivery| delivery.entries) {
        work(&worker, &delivered.entry);
        client.ack(STREAM, GROUP, [delivered.entry.id]).await?;
    }

    loop {
        // What others have left lying.
        let lost = client.auto_claim(AutoClaim::new(STREAM, GROUP, &worker, LOST_AFTER).count(10)).await?;
        for entry in lost.entries {
            work(&worker, &entry);
            client.ack(STREAM, GROUP, [entry.id]).await?;
        }

        let new = ReadGroup::new(GROUP, &worker).new_entries(STREAM).count(10).wait(Duration::from_secs(30));
        match client.read_group(new).await {
            Ok(answer) => {
                for delivered in answer.streams.into_iter().flat_map(|delivery| delivery.entries) {
                    work(&worker, &delivered.entry);
                    // An entry is worked on at least once: if we die here, someone does it again.
                    client.ack(STREAM, GROUP, [delivered.entry.id]).await?;
                }
            }
            // Whatever was delivered to us without our knowing is pending, and will be claimed when it has been idle.
            Err(error) if error.is_retryable() => eprintln!("{worker}: {error}"),
            Err(error) => return Err(error),
        }
    }
}

fn work(worker: &str, entry: &Entry) {
    println!("{worker} does {} {:?}", entry.id, entry.get("task"));
}
