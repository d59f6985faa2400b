//! The stores that write through the world's file system, on the simulated disk: the power fails at any step of a commit,
//! an open or an installation, and each unsynced write is lost, kept or torn at sectors.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millstream_node::config::Engine;
use millstream_node::storage::{Batch, StateDir, StoreError, verify_all};
use millstream_node::world::{File, Fs, OpenMode, World};
use millstream_sim_tests::disk::{Disk, SimFs};
use millstream_sim_tests::entropy::Rng;

/// A disk whose power fails after so many changes.
#[derive(Clone)]
struct Doomed {
    disk: Disk,
    fs: Arc<SimFs>,
    steps_left: Arc<AtomicU64>,
    kill_only: bool,
}

struct DoomedFile {
    file: Arc<dyn File>,
    of: Doomed,
}

impl Doomed {
    fn step(&self) {
        if self.steps_left.fetch_sub(1, Ordering::SeqCst) == 1 {
            // What was opened before fails from now on.
            if self.kill_only { self.disk.kill_process() } else { self.disk.power_loss() }
        }
    }
}

impl File for DoomedFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.of.step();
        self.file.write_all_at(buf, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.of.step();
        self.file.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn sync(&self) -> io::Result<()> {
        self.of.step();
        self.file.sync()
    }
}

impl Fs for Doomed {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.step();
        Ok(Arc::new(DoomedFile { file: self.fs.open(path, mode)?, of: self.clone() }))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.step();
        self.fs.create_dir_all(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.fs.list(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.fs.exists(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step();
        self.fs.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.step();
        self.fs.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.step();
        self.fs.remove_dir_all(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step();
        self.fs.sync_dir(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.fs.free_bytes(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.fs.lock(path)
    }
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Some rows put, some deleted; now and then a large one.
fn batch(rng: &mut Rng, model: &Model) -> (Batch, Model) {
    let (mut batch, mut after) = (Batch::new(), model.clone());
    for _ in 0..rng.below(12) + 1 {
        let key = vec![1, rng.below(30) as u8];
        if rng.one_in(4) {
            after.remove(&key);
            batch.push((key, None));
        } else {
            let length = if rng.one_in(8) { 60_000 } else { 3_000 };
            let value = vec![rng.below(256) as u8; rng.below(length) as usize];
            after.insert(key.clone(), value.clone());
            batch.push((key, Some(value.into())));
        }
    }
    (batch, after)
}

/// One life: opens, checks that the state is what `one_of` allows, commits until the power fails. Returns what may be there
/// then, and whether the power failed before the store was open.
fn live(world: &World, engine: Engine, rng: &mut Rng, one_of: &[Model]) -> Result<Vec<Model>, StoreError> {
    let (dir, mut store) = StateDir::open(world, Path::new("/data/state"), engine)?;
    let mut model = Model::new();
    for row in store.scan(&[1], &[2]) {
        let (key, value) = row?;
        model.insert(key, value.to_vec());
    }
    assert!(one_of.contains(&model), "{engine:?}: {} rows that nobody acknowledged", model.len());
    let verified = verify_all(&*store, |_| {})?;
    assert_eq!((verified.damaged, verified.rows), (Vec::new(), model.len() as u64));
    loop {
        let (changes, after) = batch(rng, &model);
        if rng.one_in(6) {
            // A new generation with other rows.
            let installed = dir.create_next().and_then(|next| {
                let rows = after.iter().map(|(key, value)| (key.clone(), Some(value.clone().into()))).collect();
                next.store.commit(rows)?;
                dir.switch_to(next)
            });
            match installed {
                Ok(next) => store = next,
                Err(_) => return Ok(vec![model, after]),
            }
        } else if store.commit(changes).is_err() {
            return Ok(vec![model, after]);
        }
        model = after;
    }
}

fn lose_power_again_and_again(engine: Engine, seeds: std::ops::Range<u64>) {
    let mut cuts = 0;
    for seed in seeds {
        let mut rng = Rng::stream(seed, "work");
        let disk = Disk::new("n1", Rng::stream(seed, "disk"), None);
        // The data directory is there, durably, before a state is opened in it.
        let fs = disk.mount();
        fs.create_dir_all(Path::new("/data")).and_then(|()| fs.sync_dir(Path::new("/"))).expect("creates");
        let mut one_of = vec![Model::new()];
        for life in 0..6 {
            let fs = Doomed {
                fs: Arc::new(disk.mount()),
                disk: disk.clone(),
                steps_left: Arc::new(AtomicU64::new(rng.below(if life == 0 { 60 } else { 250 }) + 1)),
                kill_only: rng.one_in(3),
            };
            let steps_left = fs.steps_left.clone();
            let world = World { fs: Arc::new(fs), ..World::real() };
            let failed = |steps_left: &AtomicU64| {
                let left = steps_left.load(Ordering::SeqCst);
                left == 0 || u64::MAX / 2 < left
            };
            match live(&world, engine, &mut rng, &one_of) {
                Ok(next) => one_of = next,
                // While it was opened or read.
                Err(error) => assert!(failed(&steps_left), "{engine:?}, seed {seed}, life {life}: {error}"),
            }
            assert!(failed(&steps_left), "{engine:?}, seed {seed}, life {life}: a commit failed without a reason");
            cuts += 1;
        }
        // With the power on for good, it opens and holds what it should.
        let world = World { fs: Arc::new(disk.mount()), ..World::real() };
        let opened = StateDir::open(&world, Path::new("/data/state"), engine);
        let (_dir, store) = opened.unwrap_or_else(|error| panic!("{engine:?}, seed {seed}: {error}"));
        let rows: Result<Model, _> = store.scan(&[1], &[2]).map(|row| row.map(|(k, v)| (k, v.to_vec()))).collect();
        assert!(one_of.contains(&rows.expect("verifies")), "{engine:?}, seed {seed}");
    }
    assert!(100 < cuts);
}

#[test]
fn redb_keeps_what_it_has_acknowledged() {
    lose_power_again_and_again(Engine::Redb, 0..60);
}

#[test]
fn memory_keeps_what_it_has_acknowledged() {
    lose_power_again_and_again(Engine::Memory, 0..60);
}
