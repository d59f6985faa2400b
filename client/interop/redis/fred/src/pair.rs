//! A writer and a reader, as fred's own example has them: the reader makes the stream and its group (DEL, XGROUP CREATE
//! MKSTREAM) and follows it with XREAD, the writer adds to it. Two clients, two doors.

use std::collections::HashMap;

use fred::prelude::*;
use fred::types::streams::XReadResponse;
use tokio::sync::oneshot;

use crate::support::{Outcome, Setting, equal};

const VALUES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "jäö"];

pub async fn writer_and_reader(setting: &Setting) -> Outcome {
    let (ready, begin) = oneshot::channel();
    let reader = tokio::spawn(read(setting.clone(), ready));
    let writer = tokio::spawn(write(setting.clone(), begin));
    let (written, seen) = (writer.await??, reader.await??);
    equal(seen, written, "what the reader saw")
}

type Seen = Vec<(String, HashMap<String, String>)>;

async fn read(setting: Setting, ready: oneshot::Sender<()>) -> Outcome<Seen> {
    let client = setting.connect(0).await?;
    let _: () = client.del("foo").await?;
    let _: () = client.xgroup_create("foo", "group", "$", true).await?;
    let _ = ready.send(());
    let (mut seen, mut last) = (Seen::new(), "0-0".to_owned());
    while seen.len() < VALUES.len() / 2 {
        let entry: XReadResponse<String, String, String, String> =
            client.xread_map(Some(1), Some(10_000), "foo", last.as_str()).await?;
        for (key, records) in entry {
            equal(key.as_str(), "foo", "the stream")?;
            seen.extend(records);
        }
        last = seen.last().expect("a reply within the time has an entry").0.clone();
    }
    client.quit().await?;
    Ok(seen)
}

async fn write(setting: Setting, begin: oneshot::Receiver<()>) -> Outcome<Seen> {
    begin.await?;
    let client = setting.connect(1).await?;
    let mut written = Seen::new();
    for values in VALUES.chunks(2) {
        let fields = vec![("field1", values[0]), ("field2", values[1])];
        let id: String = client.xadd("foo", false, None, "*", fields.clone()).await?;
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        written.push((id, fields.collect()));
    }
    client.quit().await?;
    Ok(written)
}
