//! A client of the Redis door that shows every byte of a reply as text.

#![allow(dead_code, reason = "each test file uses a part")]

use std::time::Duration;

use bytes::{Buf, BytesMut};
use millstream_node::config::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::support::{Cluster, PATIENCE};

/// Opens the door of each node.
pub(crate) fn with_door(config: &mut Config) {
    config.resp.listen = Some(door(config.node_id));
}

fn door(id: u64) -> String {
    format!("n{id}:6379")
}

/// One connection.
pub(crate) struct Redis {
    io: DuplexStream,
    input: BytesMut,
}

impl Redis {
    /// Connects to the door of a node.
    pub(crate) fn connect(cluster: &Cluster, id: u64) -> Self {
        Self { io: cluster.network.connect(&door(id)).expect("the door is open"), input: BytesMut::new() }
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.expect("sent");
    }

    /// Sends requests in one piece, each as a person types it.
    pub(crate) async fn send_lines(&mut self, lines: &[&str]) {
        let mut bytes = Vec::new();
        for line in lines {
            bytes.extend(request(&line.split(' ').collect::<Vec<_>>()));
        }
        self.send(&bytes).await;
    }

    /// One request and its reply.
    pub(crate) async fn ask(&mut self, line: &str) -> String {
        self.send_lines(&[line]).await;
        self.reply().await
    }

    /// Requests in one piece, and their replies.
    pub(crate) async fn ask_all(&mut self, lines: &[&str]) -> Vec<String> {
        self.send_lines(lines).await;
        let mut replies = Vec::new();
        for _ in lines {
            replies.push(self.reply().await);
        }
        replies
    }

    /// The next reply as text; `closed` if there is none to come.
    pub(crate) async fn reply(&mut self) -> String {
        loop {
            let mut cursor = &self.input[..];
            if let Some(shown) = show(&mut cursor) {
                let taken = self.input.len() - cursor.len();
                self.input.advance(taken);
                return shown;
            }
            let read =
                tokio::time::timeout(PATIENCE, self.io.read_buf(&mut self.input)).await.expect("a reply in time");
            if read.unwrap_or(0) == 0 {
                return "closed".into();
            }
        }
    }

    /// Sends no more, and still reads.
    pub(crate) async fn hang_up(&mut self) {
        self.io.shutdown().await.expect("shut down");
    }

    /// Whether nothing arrives for a while.
    pub(crate) async fn is_silent(&mut self) -> bool {
        let was_empty = self.input.is_empty();
        let reading = self.io.read_buf(&mut self.input);
        was_empty && tokio::time::timeout(Duration::from_millis(100), reading).await.is_err()
    }
}

/// A request as clients send it.
pub(crate) fn request(words: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.as_ref().len()).into_bytes());
        bytes.extend(word.as_ref());
        bytes.extend(b"\r\n");
    }
    bytes
}

/// Takes a reply off the front: `OK`, `:1`, `-ERR ...`, `"bulk"`, `nil` and `nil[]`, `[a b]`, `{a: b}`, `~[a]`.
fn show(input: &mut &[u8]) -> Option<String> {
    let end = input.windows(2).position(|pair| pair == b"\r\n")?;
    let line = String::from_utf8_lossy(&input[1..end]).into_owned();
    let kind = input[0];
    *input = &input[end + 2..];
    let count = || line.parse::<i64>().expect("a length");
    let items = |input: &mut &[u8], count: i64| (0..count).map(|_| show(input)).collect::<Option<Vec<_>>>();
    Some(match kind {
        b'+' => line,
        b'-' => format!("-{line}"),
        b':' => format!(":{line}"),
        b'_' => "_".into(),
        b'$' | b'=' if count() < 0 => "nil".into(),
        b'$' | b'=' => {
            let length = usize::try_from(count()).expect("a length");
            let bulk = input.get(..length)?;
            let shown = format!("\"{}\"", bulk.escape_ascii());
            *input = input.get(length + 2..)?;
            shown
        }
        b'*' if count() < 0 => "nil[]".into(),
        b'*' => format!("[{}]", items(input, count())?.join(" ")),
        b'~' => format!("~[{}]", items(input, count())?.join(" ")),
        b'%' => {
            let items = items(input, 2 * count())?;
            let pairs: Vec<_> = items.chunks(2).map(|pair| format!("{}: {}", pair[0], pair[1])).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        other => panic!("a reply of kind {:?}: {line}", char::from(other)),
    })
}

/// Waits until so many wait at a node.
pub(crate) async fn blocked(client: &mut Redis, count: usize) {
    let expected = format!("blocked_clients:{count}\\r\\n");
    for _ in 0..1_000 {
        if client.ask("INFO clients").await.contains(&expected) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("there are never {count} who wait");
}
