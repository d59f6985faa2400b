//! Measures our parser of Redis requests against that of the crate `redis-protocol`, on the same bytes: CPU per request.
//!
//! `cargo run --release -p millstream-node --example resp_bench`

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use redis_protocol::resp2::decode::decode_bytes_mut;
use redis_protocol::resp2::types::BytesFrame;

// The door's own file: its parser is nobody else's business.
#[allow(dead_code, reason = "only the parser is used")]
#[path = "../src/resp/request.rs"]
mod request;

use request::{Bounds, Parser};

const REQUESTS: usize = 200_000;
const ROUNDS: usize = 7;

/// A pipeline of XADDs with values of this size.
fn pipeline(value: usize) -> Vec<u8> {
    let value = "x".repeat(value);
    let one = format!("*5\r\n$4\r\nXADD\r\n$6\r\norders\r\n$1\r\n*\r\n$4\r\ndata\r\n${}\r\n{value}\r\n", value.len());
    one.repeat(REQUESTS).into_bytes()
}

/// Feeds the bytes as a socket does, and counts arguments.
fn ours(bytes: &[u8], piece: usize) -> usize {
    let most = usize::MAX / 2;
    let mut parser = Parser::new(Bounds { arguments_max: 1_000, argument_bytes_max: most, request_bytes_max: most });
    let (mut buffer, mut arguments) = (BytesMut::new(), 0);
    for piece in bytes.chunks(piece) {
        buffer.extend_from_slice(piece);
        while let Ok(Some(request)) = parser.next(&mut buffer) {
            arguments += request.len();
        }
    }
    arguments
}

fn theirs(bytes: &[u8], piece: usize) -> usize {
    let (mut buffer, mut arguments) = (BytesMut::new(), 0);
    for piece in bytes.chunks(piece) {
        buffer.extend_from_slice(piece);
        while let Ok(Some((BytesFrame::Array(frames), _, _))) = decode_bytes_mut(&mut buffer) {
            let bulks = frames.into_iter().filter_map(|frame| match frame {
                BytesFrame::BulkString(bulk) => Some(bulk),
                _ => None,
            });
            arguments += bulks.collect::<Vec<Bytes>>().len();
        }
    }
    arguments
}

fn main() {
    println!("{:<28}{:>12}{:>16}{:>8}", "ns per request", "ours", "redis-protocol", "ratio");
    for (value, piece) in [(100, 4 << 10), (100, 64 << 10), (10_000, 64 << 10)] {
        let bytes = pipeline(value);
        let (mut mine, mut other) = (Vec::new(), Vec::new());
        // In turns, so that what else the machine does befalls both.
        for _ in 0..ROUNDS {
            for (parse, times) in [(ours as fn(&[u8], usize) -> usize, &mut mine), (theirs, &mut other)] {
                let start = Instant::now();
                assert_eq!(parse(&bytes, piece), 5 * REQUESTS);
                times.push(start.elapsed().as_nanos() as usize / REQUESTS);
            }
        }
        let median = |times: &mut Vec<usize>| {
            times.sort_unstable();
            times[times.len() / 2]
        };
        let (mine, other) = (median(&mut mine), median(&mut other));
        let case = format!("{value} bytes, reads of {} KiB", piece >> 10);
        println!("{case:<28}{mine:>12}{other:>16}{:>8.2}", other as f64 / mine as f64);
    }
}
