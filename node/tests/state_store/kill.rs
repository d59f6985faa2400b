//! A process is killed at a random moment; nothing that it has acknowledged is lost.

use std::time::Duration;

use millstream_node::config::Engine;

use crate::child::Writer;
use crate::support::{Churn, Noise, Random, all, name_of, open, temporary};

/// Kills a writer several times over one store, which goes on where it was.
fn kill_again_and_again(engine: Engine, kills: u64, churn: Churn) {
    let (directory, noise) = (temporary(), Noise::new());
    let state = directory.path().join("state");
    let mut random = Random(engine as u64);
    let mut acknowledged = 0;
    for kill in 0..kills {
        let writer = Writer::start(&state, engine, churn);
        assert!(writer.wait_for_a_batch(Duration::from_secs(30)), "{engine:?}, kill {kill}: it opens");
        std::thread::sleep(Duration::from_micros(random.below(150_000)));
        acknowledged = writer.kill(acknowledged);

        let (dir, store) = open(&state, engine).unwrap_or_else(|error| panic!("{engine:?}, kill {kill}: {error}"));
        let found = churn.check(&*store, &noise).unwrap_or_else(|error| panic!("{engine:?}, kill {kill}: {error}"));
        assert!(
            found == acknowledged || found == acknowledged + 1,
            "{engine:?}, kill {kill}: {acknowledged} acknowledged, {found} found"
        );
        let verified = millstream_node::storage::verify_all(&*store, |_| {}).expect("reads");
        assert_eq!(verified.damaged, Vec::<String>::new());
        assert_eq!(verified.rows, all(&*store).len() as u64);
        acknowledged = found;
        drop((dir, store));
    }
    assert!(kills < acknowledged, "{engine:?}: {acknowledged} batches");
}

/// `MILLSTREAM_KILLS` sets how many; 6 without it.
fn kills() -> u64 {
    std::env::var("MILLSTREAM_KILLS").map_or(6, |kills| kills.parse().expect("a number"))
}

#[test]
fn sled_keeps_what_it_has_acknowledged() {
    kill_again_and_again(Engine::Sled, kills(), Churn::SMALL);
}

#[test]
fn redb_keeps_what_it_has_acknowledged() {
    kill_again_and_again(Engine::Redb, kills(), Churn::SMALL);
}

#[test]
fn memory_keeps_what_it_has_acknowledged() {
    kill_again_and_again(Engine::Memory, kills(), Churn::SMALL);
}

#[test]
fn churn_itself_is_well_defined() {
    let (noise, directory) = (Noise::new(), temporary());
    let (_dir, store) = open(directory.path(), Engine::Memory).expect("opens");
    for number in 1..30 {
        store.commit(Churn::SMALL.batch(number, &noise)).expect("commits");
        assert_eq!(Churn::SMALL.check(&*store, &noise), Ok(number), "{}", name_of(Engine::Memory));
    }
    assert!(store.get(b"number").expect("reads").is_some());
    store.commit(vec![(b"number".to_vec(), Some((5_u64).to_be_bytes().to_vec().into()))]).expect("commits");
    assert!(Churn::SMALL.check(&*store, &noise).is_err(), "another state than the number says");
}
