//! Damage to what was durable.

use std::path::{Path, PathBuf};

use super::State;
use super::faults::Area;
use super::images::{Inode, SECTOR};
use super::names::ROOT;
use crate::entropy::Rng;

/// A sector of a file on the platter.
struct Place {
    path: PathBuf,
    inode: u64,
    sector: usize,
}

impl State {
    /// Flips bits on the platter. What was read before and is not in memory shows it at once.
    pub(super) fn flip_bits(&mut self, count: u32, seed: u64, area: Area) {
        let mut rng = Rng::stream(seed, &format!("flipped bits {}", self.node));
        let places = self.used_sectors(area);
        for _ in 0..count {
            let Some(place) = pick(&places, &mut rng) else { return };
            let (within, bit) = (rng.below(SECTOR as u64) as usize, 1 << rng.below(8));
            self.version += 1;
            let version = self.version;
            let Ok(file) = self.file(place.inode) else { continue };
            let at = (place.sector * SECTOR + within).min(file.durable.len() - 1);
            let (before, read) = (file.durable[at], file.volatile.get_mut(at));
            file.durable[at] ^= bit;
            file.durable_since = version;
            // A page that was written since is in memory and stays there.
            if let Some(read) = read.filter(|read| **read == before) {
                *read ^= bit;
            }
            self.counters.bits_flipped += 1;
            self.damaged = true;
            self.trace(format_args!("flip a bit of byte {at} of {}", place.path.display()));
        }
    }

    /// Makes sectors unreadable.
    pub(super) fn lose_sectors(&mut self, count: u32, seed: u64, area: Area) {
        let mut rng = Rng::stream(seed, &format!("lost sectors {}", self.node));
        let places = self.used_sectors(area);
        for _ in 0..count {
            let Some(place) = pick(&places, &mut rng) else { return };
            self.injected.unreadable.insert((place.inode, place.sector));
            self.counters.sectors_lost += 1;
            self.damaged = true;
            self.trace(format_args!("lose sector {} of {}", place.sector, place.path.display()));
        }
    }

    /// All sectors on the platter that hold something, in order.
    fn used_sectors(&self, area: Area) -> Vec<Place> {
        let mut places = Vec::new();
        self.visit_durable(ROOT, Path::new("/"), &mut |path, inode, content| {
            if area.holds(path) {
                let used = content.chunks(SECTOR).enumerate().filter(|(_, chunk)| chunk.iter().any(|byte| *byte != 0));
                places.extend(used.map(|(sector, _)| Place { path: path.to_owned(), inode, sector }));
            }
        });
        places
    }

    fn visit_durable(&self, inode: u64, path: &Path, visit: &mut impl FnMut(&Path, u64, &[u8])) {
        match self.inodes.get(&inode) {
            Some(Inode::File(file)) => visit(path, inode, &file.durable),
            Some(Inode::Directory(directory)) => {
                for (name, inode) in &directory.durable {
                    self.visit_durable(*inode, &path.join(name), visit);
                }
            }
            None => {}
        }
    }
}

fn pick<'p>(places: &'p [Place], rng: &mut Rng) -> Option<&'p Place> {
    let count = places.len() as u64;
    if count == 0 { None } else { places.get(rng.below(count) as usize) }
}

/// Where a write of `length` bytes that was meant for `offset` goes by mistake, in a file of `size` bytes: another sector,
/// the same place within it.
pub(super) fn elsewhere(offset: usize, length: usize, size: usize, seed: u64) -> usize {
    let within = offset % SECTOR;
    let sectors = (size.saturating_sub(within + length) / SECTOR) as u64 + 1;
    let sector = Rng::stream(seed, "misdirected write").below(sectors) as usize;
    let other = if sector == offset / SECTOR { sector + 1 } else { sector };
    other * SECTOR + within
}
