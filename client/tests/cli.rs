//! The binary as people and scripts meet it, against one fake node.

mod support;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

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
    assert_eq!(
        stdout,
        "{\"stream\":\"orders\",\"id\":\"1-1\",\"trimmed\":0,\"duplicate\":false,\"log_index\":11,\"term\":1}\n"
    );
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
        &["delete-all"],
        &["append", "orders", "a=b", "--producer", "p", "--id", "5-1"],
        &["append", "orders", "--jsonl", "-", "--key", "k", "--producer", "p"],
        &["batch", "/does/not/exist"],
        &["batch", "-"],
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
async fn members_come_and_go_by_verbs() {
    let cluster = Cluster::default();
    let node = cluster.start_tcp().await;
    let (code, stdout, _) = millstream(&node, &["cluster", "add", "4", "four:7421"]);
    let expected = "{\"node\":4,\"votes\":\"learner\",\"peer_address\":\"four:7421\",\"address\":\"\"}\n";
    assert_eq!((code, stdout.as_str()), (0, expected));
    let (code, stdout, _) = millstream(&node, &["cluster", "promote", "4", "--wait", "2s", "--output", "text"]);
    assert_eq!(
        (code, stdout.lines().nth(1).map(|line| line.split_whitespace().take(2).collect())),
        (0, Some(vec!["4", "voter"]))
    );
    assert_eq!(
        cluster.seen("change_voters").iter().map(|seen| seen.wait).collect::<Vec<_>>(),
        [Some(Duration::from_secs(2))]
    );
    let (code, stdout, _) = millstream(&node, &["cluster", "transfer", "4"]);
    assert_eq!((code, stdout.as_str()), (0, "{\"leader_id\":4,\"term\":4}\n"));
    cluster.script("tcp", "change_voters", [Step::Refuse(ErrorReason::MembershipRefused, &[])]);
    let (code, _, stderr) = millstream(&node, &["cluster", "remove", "4"]);
    assert_eq!((code, stderr.contains("MEMBERSHIP_REFUSED")), (1, true), "{stderr}");
    assert_eq!(millstream(&node, &["cluster", "add", "0", "four:7421"]).0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_a_file_once_it_is_whole() {
    let cluster = Cluster::default();
    let node = cluster.start_tcp().await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("backup");
    let name = file.to_str().expect("UTF-8");
    let names = || {
        let entries = std::fs::read_dir(directory.path()).expect("readable");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("readable").file_name()).collect();
        names.sort();
        names
    };
    let (code, stdout, stderr) = millstream(&node, &["backup", name]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.ends_with("\"bytes\":8,\"log_index\":42,\"cluster_id\":\"abc\"}\n"), "{stdout}");
    assert_eq!((std::fs::read(&file).expect("readable"), names()), (b"backed u".to_vec(), vec!["backup".into()]));

    let (code, _, stderr) = millstream(&node, &["backup", name]);
    assert_eq!((code, stderr.contains("--force")), (2, true), "{stderr}");
    // One that breaks off does not replace the one that is there.
    let (code, _, stderr) = millstream(&node, &["backup", name, "--force"]);
    assert_eq!((code, stderr.contains("ended before its end")), (3, true), "{stderr}");
    assert_eq!(std::fs::read(&file).expect("readable"), b"backed u");
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
        assert!(row["log_syncs_per_append"].is_number(), "{row}");
    }
    assert_eq!(rows[3]["pid"], std::process::id());
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_ids_are_told_one_by_one() {
    let cluster = Cluster::default();
    let node = cluster.start_tcp().await;
    let args = ["delete", "orders", "1-1", "1-2", "1-3", "--references", "acked"];
    let (code, stdout, _) = millstream(&node, &args);
    assert_eq!(code, 0);
    let json: serde_json::Value = serde_json::from_str(&stdout).expect("one JSON object");
    assert_eq!((&json["deleted"], &json["results"][1]["result"]), (&1.into(), &"not_found".into()));
    let (_, stdout, _) = millstream(&node, &[&args[..], &["--output", "text"]].concat());
    assert_eq!(stdout, "1-1 deleted\n1-2 not found\n1-3 referenced\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_delivered_again_says_so() {
    let cluster = Cluster::default();
    let node = cluster.start_tcp().await;
    let args = ["read-group", "g", "ada", "orders=>", "--claim", "100"];
    let (code, stdout, _) = millstream(&node, &args);
    assert_eq!(code, 0);
    assert_eq!(
        stdout,
        "{\"id\":\"1-2\",\"fields\":[[\"n\",\"1\"]],\"redelivery\":{\"idle_ms\":300,\"delivery_count\":2}}\n\
         {\"id\":\"1-1\",\"deleted\":true}\n\
         {\"id\":\"1-3\",\"fields\":[[\"n\",\"1\"]]}\n\
         {\"more\":true}\n"
    );
    let (_, stdout, _) = millstream(&node, &[&args[..], &["--output", "text"]].concat());
    assert_eq!(stdout, "1-2 n=1 (delivered 2 times before, idle 300 ms)\n1-1 (deleted)\n1-3 n=1\n(more)\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_not_all_say_so() {
    let cluster = Cluster::default();
    let node = cluster.start_tcp().await;
    for (args, text, json) in [
        (&["read", "orders=0", "refunds=0"][..], "orders (more)", r#"{"stream":"orders","more":true}"#),
        (&["read", "orders=0"], "(more)", r#"{"more":true}"#),
        (&["claim", "orders", "g", "ada", "0", "1-1", "1-2"], "(more)", r#"{"more":true}"#),
        (&["pending", "orders", "g", "-", "+", "10"], "(more)", r#"{"more":true}"#),
        (
            &["pending", "orders", "g", "(1-1", "+", "10", "--min-idle", "5"],
            "(more, from 1-5)",
            r#"{"more":true,"next_start":"1-5"}"#,
        ),
    ] {
        let (code, stdout, stderr) = millstream(&node, &[args, &["--output", "text"]].concat());
        assert_eq!((code, stderr.as_str(), stdout.lines().last()), (0, "", Some(text)), "{args:?}");
        let (_, stdout, _) = millstream(&node, args);
        assert_eq!(stdout.lines().last(), Some(json), "{args:?}");
    }
    // What was asked for was had, or is all there is.
    for args in [&["read", "orders=0", "--count", "1"][..], &["pending", "orders", "g", "1-5", "+", "10"]] {
        let (_, stdout, _) = millstream(&node, args);
        assert!(!stdout.contains("more"), "{args:?}: {stdout}");
    }
    let (_, stdout, _) = millstream(&node, &["pending", "orders", "g", "--output", "text"]);
    assert_eq!(stdout, "3 pending, 1-1 to 1-9\nada 2\n(more)\n");
    let (_, stdout, _) = millstream(&node, &["pending", "orders", "g"]);
    assert!(stdout.ends_with("\"more_consumers\":true}\n"), "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_described_in_full() {
    let cluster = Cluster::default();
    let node = cluster.start_tcp().await;
    let (code, stdout, _) = millstream(&node, &["info", "orders", "--full"]);
    assert_eq!(code, 0);
    let json: serde_json::Value = serde_json::from_str(&stdout).expect("one JSON object");
    assert_eq!((&json["bytes"], &json["last_change_index"], &json["truncated"]), (&21.into(), &9.into(), &true.into()));
    assert_eq!(json["config"]["retention"]["max_age_ms"], 60_000);
    assert_eq!(json["config"]["retention"]["references"], "acked");
    let group = &json["group_details"][0];
    assert_eq!((&group["released_count"], &group["pending"][0]["consumer"]), (&1.into(), &serde_json::Value::Null));
    let (_, stdout, _) = millstream(&node, &["info", "orders", "--full", "--output", "text"]);
    let last: Vec<&str> = stdout.lines().skip(8).collect();
    assert_eq!(
        last,
        [
            "retention       60s; references: acked",
            "idempotency     100s, 50 keys of each producer",
            "producers       0 with 0 keys; 0 appends ever, 0 duplicates",
            "entry           1-1 n=1",
            "group           g: after 1-1, read -, lag 0, pending 1, released 1",
            "  pending       1-1 given back, 4 times",
            "  consumer      ada: pending 0, seen 5, active -",
            "(more)",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_tells_what_came_of_each_line() {
    let cluster = Cluster::default();
    let node = cluster.start_tcp().await;
    let lines = "# a sale\n[\"append\", \"orders\", \"note=two words\"]\n\nack orders g 1-1\n";
    let (code, stdout, stderr) = millstream_with(&node, &["batch", "-", "--continue-on-error"], lines);
    assert_eq!((code, stderr.as_str()), (1, "millstream: 1 refused\n"));
    let rows: Vec<serde_json::Value> = stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&rows[0]["operation"], &rows[0]["line"]), (&0.into(), &2.into()));
    assert_eq!((&rows[0]["result"][0]["id"], &rows[0]["result"][0]["log_index"]), (&"1-1".into(), &17.into()));
    assert_eq!(rows[1]["error"]["reason"], "GROUP_NOT_FOUND");
    assert_eq!(rows[1]["error"]["metadata"]["group"], "g");
    assert_eq!(rows[2]["log_index"], 17);

    let (code, stdout, _) = millstream_with(&node, &["batch", "-", "--output", "text"], "append orders a=b\n");
    assert_eq!((code, stdout.as_str()), (0, "line 1:\n1-1\ndone, at log index 17\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_batch_names_the_line() {
    let cluster = Cluster::default();
    let node = cluster.start_tcp().await;
    cluster.script("tcp", "batch", [Step::Refuse(ErrorReason::StreamNotFound, &[("operation", "1")])]);
    let lines = "append orders a=b\n\nset-last-id refunds 5-0\n";
    let (code, _, stderr) = millstream_with(&node, &["batch", "-", "--absent", "refunds"], lines);
    assert_eq!(code, 1);
    assert_eq!(stderr, "millstream: line 3: refused: because of STREAM_NOT_FOUND (STREAM_NOT_FOUND)\n");

    let (code, _, stderr) = millstream_with(&node, &["batch", "-"], "append orders a=b\ntrim orders\n");
    assert_eq!((code, stderr.contains("line 2: error: ")), (2, true), "{stderr}");
    assert!(cluster.seen("batch").len() == 1, "nothing was sent");
}
