//! How do I append entries, and read them back?
//!
//! ```text
//! cargo run -p millstream-client --example append_and_read
//! ```
//!
//! Endpoints are taken from the arguments; 127.0.0.1:7420 without any.

use std::ops::Bound;

use futures::TryStreamExt;
use millstream_client::{Append, Client, ClientOptions, Error, Freshness, Range, Trim};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let endpoints: Vec<String> = std::env::args().skip(1).collect();
    let options = if endpoints.is_empty() { ClientOptions::default() } else { ClientOptions::new(endpoints) };
    let client = Client::connect(options)?;

    // When this returns, a majority has the entry on stable storage. A lost answer is asked for again, and the entry is
    // appended once all the same: the call carries a number in a session.
    let first = client.append(Append::to("tea").field("kind", "green").field("cups", "2")).await?;
    println!("appended {} at log index {}", first.id, first.receipt.log_index);

    // Keep about the last thousand entries, in the same command.
    let trim = Trim::max_length(1000).approximate();
    let second = client.append(Append::to("tea").field("kind", "black").trim(trim)).await?;

    // Reads are linearizable: this sees both, whichever node answers.
    let range = Range::of("tea").start(Bound::Included(first.id));
    let mut entries = std::pin::pin!(client.range_all(range));
    while let Some(entry) = entries.try_next().await? {
        println!("{} {:?}", entry.id, entry.get("kind"));
    }

    // A cheaper read, by any node that has seen at least what we have written.
    let nearby = client.with_freshness(Freshness::AtLeast(second.receipt));
    println!("{} entries", nearby.get_stream("tea").await?.length);

    client.close().await
}
