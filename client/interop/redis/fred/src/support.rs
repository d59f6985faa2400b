//! What a program is given, what it reports, and the account of what was acknowledged.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fred::prelude::*;
use fred::types::RespVersion;

pub const VERSION: &str = "10.1.0";
const FAILOVER_MAX: Duration = Duration::from_secs(60);
const APPENDS_AFTER: u64 = 100;
pub const GROUPS: [&str; 2] = ["billing", "shipping"];

pub type Failure = Box<dyn std::error::Error + Send + Sync>;
pub type Outcome<T = ()> = Result<T, Failure>;
/// Entries as fred hands them out: id and fields.
pub type Entries = Vec<(String, HashMap<String, String>)>;

pub fn equal<T: PartialEq + Debug>(got: T, expected: T, what: &str) -> Outcome {
    if got == expected {
        return Ok(());
    }
    Err(format!("{what}: expected {expected:?}, got {got:?}").into())
}

pub fn holds(condition: bool, what: &str) -> Outcome {
    if condition { Ok(()) } else { Err(what.into()) }
}

fn id_of(text: &str) -> Outcome<(u64, u64)> {
    let (ms, seq) = text.split_once('-').ok_or("an id has two parts")?;
    Ok((ms.parse()?, seq.parse()?))
}

pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("the clock is past 1970").as_millis() as i64
}

#[derive(Clone)]
pub struct Setting {
    addresses: Vec<(String, u16)>,
    pub protocol: u8,
    pub part: String,
    pub faults: PathBuf,
}

impl Setting {
    /// Ends the program if something is missing: run.sh always says everything.
    pub fn from_arguments() -> Self {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let of = |name: &str| {
            let at = words.iter().position(|word| word == name);
            at.and_then(|at| words.get(at + 1)).unwrap_or_else(|| panic!("{name} is missing")).clone()
        };
        let address = |text: &str| {
            let (host, port) = text.rsplit_once(':').expect("an address is host:port");
            (host.to_owned(), port.parse().expect("a port is a number"))
        };
        Self {
            addresses: of("--addresses").split(',').map(address).collect(),
            protocol: of("--protocol").parse().expect("a protocol is a number"),
            part: of("--part"),
            faults: of("--fault-dir").into(),
        }
    }

    /// How to make a client of the turn-th door.
    pub fn builder(&self, turn: usize) -> Builder {
        let (host, port) = self.addresses[turn % self.addresses.len()].clone();
        let version = if self.protocol == 3 { RespVersion::RESP3 } else { RespVersion::RESP2 };
        let server = ServerConfig::new_centralized(host, port);
        Builder::from_config(Config { server, version, ..Config::default() })
    }

    pub async fn connect(&self, turn: usize) -> Outcome<Client> {
        let client = self.builder(turn).build()?;
        client.init().await?;
        Ok(client)
    }
}

/// Counts cases, and says how they went in the form that run.sh reads.
pub struct Report {
    protocol: u8,
    part: String,
    passed: u32,
    failed: u32,
}

impl Report {
    pub fn new(setting: &Setting) -> Self {
        Self { protocol: setting.protocol, part: setting.part.clone(), passed: 0, failed: 0 }
    }

    pub async fn case(&mut self, name: &str, case: impl Future<Output = Outcome>) {
        match tokio::time::timeout(FAILOVER_MAX, case).await {
            Ok(Ok(())) => {
                self.passed += 1;
                println!("ok {name}");
            }
            Ok(Err(failure)) => self.failure(name, &failure.to_string()),
            Err(_) => self.failure(name, "it takes too long"),
        }
    }

    pub fn failure(&mut self, name: &str, why: &str) {
        self.failed += 1;
        println!("FAILED {name}: {why}");
    }

    pub fn end(self) -> ExitCode {
        let Self { protocol, part, passed, failed } = self;
        println!("result|fred|{VERSION}|RESP{protocol}|{part}|{passed}|{failed}");
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Which numbers were appended, under which ids, when, and what the groups handled.
pub struct Account {
    faults: PathBuf,
    deadline: Instant,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    acknowledged: BTreeMap<u64, (String, i64, i64)>,
    handled: HashMap<&'static str, HashSet<String>>,
    restored_from: HashMap<u64, u64>,
}

impl Account {
    pub fn new(faults: PathBuf) -> Self {
        Self { faults, deadline: Instant::now() + FAILOVER_MAX, known: Mutex::default() }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().expect("nobody panics with it")
    }

    /// The time in ms that run.sh has written, once it has.
    fn fault_at(&self, name: &str) -> Option<i64> {
        std::fs::read_to_string(self.faults.join(name)).ok()?.trim().parse().ok()
    }

    pub fn in_time(&self, what: &str) -> Outcome {
        holds(Instant::now() < self.deadline, &format!("{what} came through within {FAILOVER_MAX:?}"))
    }

    pub fn appended(&self, producer: u64, number: u64, id: String, began: i64) -> Outcome {
        let mut known = self.known();
        let before = known.acknowledged.insert(number, (id, began, now_ms()));
        holds(before.is_none(), "each number is acknowledged once")?;
        let count = known.acknowledged.len();
        if count.is_multiple_of(20) {
            std::fs::write(self.faults.join("progress"), count.to_string())?;
        }
        if self.fault_at("restored").is_some() {
            known.restored_from.entry(producer).or_insert(number);
        }
        Ok(())
    }

    /// Whether a producer has appended enough after the leader came back.
    pub fn producer_done(&self, producer: u64, number: u64) -> bool {
        self.known().restored_from.get(&producer).is_some_and(|from| from + APPENDS_AFTER <= number)
    }

    pub fn handled(&self, group: &'static str, ids: &[String]) {
        self.known().handled.entry(group).or_default().extend(ids.iter().cloned());
    }

    pub async fn verify(&self, report: &mut Report, entries: &[(String, u64)], left: &[(String, i64, i64)]) {
        let (killed, restored) = (self.fault_at("killed"), self.fault_at("restored"));
        let known = std::mem::take(&mut *self.known());
        let (Some(killed), Some(restored)) = (killed, restored) else {
            return report.failure("failover-happened", "the leader was not killed and started again");
        };
        let began: Vec<i64> = known.acknowledged.values().map(|(_, began, _)| *began).collect();
        let around = began.iter().any(|ms| *ms < killed) && began.iter().any(|ms| restored < *ms);
        report.case("failover-happened", async { holds(around, "appends began before and after it") }).await;

        let there: HashMap<&str, u64> = entries.iter().map(|(id, number)| (id.as_str(), *number)).collect();
        let lost: Vec<_> =
            known.acknowledged.iter().filter(|(n, (id, ..))| there.get(id.as_str()) != Some(n)).collect();
        let check = async {
            equal(lost, Vec::new(), "acknowledged, but not at their id")?;
            for turn in [0, 1] {
                let of_turn = known.acknowledged.iter().filter(|(number, _)| *number % 2 == turn);
                let ids = of_turn.map(|(_, (id, ..))| id_of(id)).collect::<Outcome<Vec<_>>>()?;
                holds(ids.is_sorted_by(|low, high| low < high), "what a producer appends later has a higher id")?;
            }
            Ok(())
        };
        report.case("failover-none-lost", check).await;

        let mut times: BTreeMap<u64, u32> = BTreeMap::new();
        for (_, number) in entries {
            *times.entry(*number).or_default() += 1;
        }
        let doubled: Vec<u64> = times.iter().filter(|(_, count)| 1 < **count).map(|(number, _)| *number).collect();
        let check = async {
            holds(times.keys().eq(known.acknowledged.keys()), "the stream holds no other numbers")?;
            for number in &doubled {
                let (_, began, ended) = &known.acknowledged[number];
                let near = *began <= restored + 5000 && killed - 100 <= *ended;
                holds(near, &format!("{number} was doubled far from the fault"))?;
            }
            let (acknowledged, stored) = (known.acknowledged.len(), entries.len());
            println!("     {acknowledged} acknowledged, {stored} in the stream, {} doubled", doubled.len());
            // Even numbers went by way of the door that ended, odd ones by way of another, if there is one.
            for (turn, door) in (0..).zip(["the leader's door", "another door"]) {
                let of_turn = known.acknowledged.iter().filter(|(number, _)| *number % 2 == turn);
                let longest = of_turn.map(|(_, (_, began, ended))| ended - began).max().unwrap_or_default();
                let times = doubled.iter().filter(|number| *number % 2 == turn).count();
                println!("       by way of {door}: {times} doubled, the longest append took {longest} ms");
            }
            Ok(())
        };
        report.case("failover-doubled", check).await;

        let check = async {
            let nothing = HashSet::new();
            for group in GROUPS {
                let handled = known.handled.get(group).unwrap_or(&nothing);
                let missing = entries.iter().filter(|(id, _)| !handled.contains(id)).count();
                equal(missing, 0, &format!("ids that group {group} has not handled"))?;
            }
            let expected: Vec<_> = GROUPS.map(|group| (group.to_owned(), 0, 0)).to_vec();
            equal(left.to_vec(), expected, "what is left: group, pending, lag")
        };
        report.case("failover-groups", check).await;
    }
}
