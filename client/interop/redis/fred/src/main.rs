//! fred through every case of cases.txt, as a writer and a reader of one stream, and through the leader's end.
//! Started by run.sh one folder up; python/support.py there says more about what a program is given and what it reports.

mod cases;
mod failover;
mod pair;
mod support;

use std::process::ExitCode;

use support::{Report, Setting};

#[tokio::main]
async fn main() -> ExitCode {
    let setting = Setting::from_arguments();
    let mut report = Report::new(&setting);
    if setting.part == "failover" {
        failover::run(&setting, &mut report).await;
    } else {
        cases::run(&setting, &mut report).await;
        report.case("writer-and-reader", pair::writer_and_reader(&setting)).await;
    }
    report.end()
}
