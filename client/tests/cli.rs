//! The binary as people and scripts meet it, against one fake node.

mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use millstream_client::ErrorReason;
use support::{Cluster, Step};

/// Exit code, stdout, stderr of `millstream ARGS`, with `stdin`.
fn millstream_with(endpoints: &str, args: &[&str], stdin: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_millstream"))
        .args(args)
        .env("MILLSTREAM_ENDPOINTS", endpoints)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    child.stdin.take().expect("piped").write_all(stdin.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("the binary ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

fn millstream(endpoints: &str, args: &[&str]) -> (i32, String, String) {
    millstream_with(endpoints, args, "")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_is_answered_in_json_or_text_and_its_session_closed() {
    let cluster = Cluster::default();
    let node = cluster.start_tcp().await;
    let (code, stdout, stderr) = millstream(&node, &["append", "orders", "item=tea", "note=a=b"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout, "{\"stream\":\"orders\",\"id\":\"1-1\",\"log_index\":11,\"term\":1}\n");
    let (_, stdout, _) = millstream(&node, &["--output", "text", "append", "orders", "item=tea", "--maxlen", "~10"]);
    assert_eq!(stdout, "1-2\n");
    assert_eq!(cluster.told("append"), ["tcp:100/1<1", "tcp:200/1<1"]);
    assert_eq!(cluster.seen("close_session").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_paged_and_bounded() {
    let cluster = Cluster::default();
    let node = cluster.start_tcp().await;
    let (code, stdout, _) = millstream(&node, &["range", "orders", "-", "+", "--rev", "--count", "3"]);
    assert_eq!(code, 0);
    assert_eq!(
        stdout,
        "{\"id\":\"1-5\",\"fields\":[[\"n\",{\"$base64\":\"/wA=\"}]]}\n\
         {\"id\":\"1-4\",\"fields\":[[\"n\",\"4\"]]}\n\
         {\"id\":\"1-3\",\"fields\":[[\"n\",\"3\"]]}\n"
    );
    let (_, stdout, _) = millstream(&node, &["range", "orders", "(1-3", "+", "--output", "text"]);
    assert_eq!(stdout, "1-4 n=4\n1-5 n=\"\\xff\\x00\"\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_tell_what_to_do() {
    let cluster = Cluster::default();
    let node = cluster.start_tcp().await;
    cluster.script("tcp", "append", [Step::Refuse(ErrorReason::IdNotGreater, &[])]);
    let (code, stdout, stderr) = millstream(&node, &["append", "orders", "a=b", "--id", "5-1"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert_eq!(stderr, "millstream: refused: because of ID_NOT_GREATER (ID_NOT_GREATER)\n");

    cluster.script("tcp", "append", vec![Step::Refuse(ErrorReason::NoLeader, &[]); 1000]);
    let (code, _, stderr) = millstream(&node, &["append", "orders", "a=b", "--timeout", "200ms"]);
    assert_eq!((code, stderr.starts_with("millstream: unavailable")), (3, true), "{stderr}");

    for usage in [
        &["append", "orders"][..],
        &["append", "orders", "novalue"],
        &["append", "orders", "a=b", "--maxlen", "1", "--minid", "1"],
        &["append", "orders", "a=b", "--in-flight", "2"],
        &["trim", "orders"],
        &["range", "orders", "x"],
        &["range", "orders", "-"],
        &["frobnicate"],
        &["info", "orders", "--endpoints", "nowhere"],
        &["append", "orders", "--jsonl", "/does/not/exist"],
    ] {
        assert_eq!(millstream(&node, usage).0, 2, "{usage:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_lines_is_appended_in_order_and_refusals_are_numbered() {
    let cluster = Cluster::default();
    let node = cluster.start_tcp().await;
    let refuse = Step::Refuse(ErrorReason::LimitExceeded, &[]);
    cluster.script("tcp", "append", [Step::Answer, refuse]);
    let lines = "{\"a\":1}\n\n{\"a\":\"too long\"}\n[]\n{\"a\":{\"b\":true}}\n";
    let (code, stdout, stderr) = millstream_with(&node, &["append", "orders", "--jsonl", "-"], lines);
    assert_eq!(code, 1);
    let summary: serde_json::Value = serde_json::from_str(&stdout).expect("one JSON object");
    assert_eq!((&summary["appended"], &summary["refused"], &summary["last_id"]), (&2.into(), &2.into(), &"1-2".into()));
    let reports: Vec<&str> = stderr.lines().map(|line| &line[..7]).collect();
    assert_eq!(reports, ["line 3:", "line 4:", "millstr"], "{stderr}");

    let (code, _, _) =
        millstream_with(&node, &["append", "orders", "--jsonl", "-", "--in-flight", "8"], &"{\"a\":1}\n".repeat(100));
    assert_eq!(code, 0);
    assert_eq!(cluster.seen("append").len(), 103);
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_status_shows_who_is_missing() {
    let cluster = Cluster::default();
    let node = cluster.start_tcp().await;
    // Port 1 of the loopback: nobody listens.
    let (code, stdout, _) = millstream(&format!("{node},127.0.0.1:1"), &["cluster", "status", "--output", "text"]);
    assert_eq!(code, 0, "one node answered");
    let lines: Vec<Vec<&str>> = stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[1][..5], ["1", "leader", &node, "3", "42"], "{stdout}");
    assert_eq!(lines[2][..3], ["-", "unreachable", "127.0.0.1:1"], "{stdout}");
    let (code, _, _) = millstream("127.0.0.1:1", &["cluster", "status"]);
    assert_eq!(code, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_ends_the_command_quietly() {
    let cluster = Cluster::default();
    let node = cluster.start_tcp().await;
    let mut child = Command::new(env!("CARGO_BIN_EXE_millstream"))
        .args(["range", "orders", "--endpoints", &node])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the binary ends");
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bench_measures_what_it_can_see() {
    let cluster = Cluster::default();
    let node = cluster.start_tcp().await;
    let pid = std::process::id().to_string();
    let args = ["bench", "append", "--clients", "1,8", "--seconds", "200ms", "--connections", "2", "--pids", &pid];
    let (code, stdout, stderr) = millstream(&node, &args);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let rows: Vec<serde_json::Value> = stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows.len(), 4);
    assert_eq!((&rows[0]["connections"], &rows[1]["connections"]), (&1.into(), &2.into()));
    for row in &rows[..2] {
        assert!(0 < row["appends"].as_u64().expect("a number") && row["errors"] == 0, "{row}");
        assert!(row["p50_us"].as_u64() <= row["p99_us"].as_u64() && row["p99_us"].as_u64() <= row["max_us"].as_u64());
        assert!(row["server_cpu_us_per_append"].is_number() && row["bench_cpu_us_per_append"].is_number(), "{row}");
    }
    assert_eq!(rows[3]["pid"], std::process::id());
}
