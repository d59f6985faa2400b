//! How many clients of which kind, and how eager they are.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::entropy::Rng;

/// How many of whom. A missing number reads as the default's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    /// Clients that append in sessions, to the hot stream and the small ones.
    pub producers: u64,
    /// Clients that append under idempotency keys, without sessions, and repeat themselves until they know.
    pub keyed: u64,
    /// Clients that append with neither: what they do not know stays unknown.
    pub careless: u64,
    /// Clients that append with ids of their own choice, and on condition that a stream is unchanged.
    pub guarded: u64,
    /// Streams beside the hot one, of which each gets little.
    pub small_streams: u64,
    /// Groups on the hot stream.
    pub groups: u64,
    /// Consumers of each group.
    pub consumers: u64,
    /// Consumers that do little but take over what others hold.
    pub claimers: u64,
    /// Clients that read ranges, and look at pending entries.
    pub readers: u64,
    /// Clients that wait for new entries.
    pub tailers: u64,
    /// Clients that append to a stream that they trim.
    pub trimmers: u64,
    /// Clients that delete what they have appended.
    pub deleters: u64,
    /// Clients that create, move and delete groups, each on a stream of its own.
    pub changers: u64,
    /// Longest pause of a client between two calls.
    pub pause_max_ms: u64,
    /// How long an entry must lie idle until another consumer takes it.
    pub idle_min_ms: u64,
    /// One append in so many is larger than a frame of the network. 0: none.
    pub large_one_in: u64,
    /// One call in so many is left before its answer. 0: none.
    pub leave_one_in: u64,
    /// One client in so many is in a hurry: its calls have a short deadline. 0: none.
    pub hurry_one_in: u64,
    /// Now and then all clients rest for this long. 0: never.
    pub rest_ms: u64,
    /// Readers of groups wait for nine times this, at most.
    pub wait_unit_ms: u64,
    /// One client in so many uses the Redis door, of whichever node, for all that the door can do. 0: none, and then
    /// the nodes have no door.
    pub door_one_in: u64,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            producers: 4,
            keyed: 1,
            careless: 1,
            guarded: 1,
            small_streams: 6,
            groups: 1,
            consumers: 3,
            claimers: 1,
            readers: 2,
            tailers: 1,
            trimmers: 1,
            deleters: 1,
            changers: 1,
            pause_max_ms: 100,
            idle_min_ms: 1_500,
            large_one_in: 60,
            leave_one_in: 40,
            hurry_one_in: 3,
            rest_ms: 0,
            wait_unit_ms: 50,
            door_one_in: 0,
        }
    }
}

impl Load {
    /// Some kinds of clients, and how they are today. Everybody needs producers and consumers, the rest comes and goes.
    pub fn draw(rng: &mut Rng) -> Self {
        let mut some = |most: u64| if rng.one_in(3) { 0 } else { 1 + rng.below(most) };
        let [keyed, careless, guarded, claimers, readers, tailers] =
            [some(3), some(2), some(2), some(3), some(3), some(3)];
        let [trimmers, deleters, changers] = [some(2), some(2), some(2)];
        let producers = 1 + rng.below(5);
        let groups = 1 + rng.below(3);
        // Groups share what there is of consumers.
        let consumers = (1 + rng.below(5) / groups).max(1);
        let clients = producers + keyed + careless + guarded + groups * consumers + claimers + readers + tailers;
        let clients = clients + trimmers + deleters + changers;
        Self {
            producers,
            keyed,
            careless,
            guarded,
            small_streams: [0, 2, 8, 30][rng.below(4) as usize],
            groups,
            consumers,
            claimers,
            readers,
            tailers,
            trimmers,
            deleters,
            changers,
            // Together they make 100 to 400 calls a second.
            pause_max_ms: clients * (4 + rng.below(10)),
            idle_min_ms: [300, 1_000, 1_500, 3_000][rng.below(4) as usize],
            large_one_in: [0, 20, 60, 200][rng.below(4) as usize],
            leave_one_in: [0, 10, 40, 100][rng.below(4) as usize],
            hurry_one_in: [0, 1, 2, 4][rng.below(4) as usize],
            rest_ms: [0, 0, 300, 800][rng.below(4) as usize],
            wait_unit_ms: 50,
            door_one_in: 0,
        }
    }

    /// In half of the plans some clients use the Redis door: all of them, or one in four at least. For draws of its
    /// own, as plans are older than the door.
    pub fn draw_door(&mut self, rng: &mut Rng) {
        self.door_one_in = if rng.one_in(2) { 0 } else { 1 + rng.below(4) };
    }

    /// Longest pause of a client between two calls.
    pub(super) fn pause_max(&self) -> Duration {
        Duration::from_millis(self.pause_max_ms.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_differ_and_survive_json() {
        let mut rng = Rng::stream(1, "load");
        let drawn: Vec<_> = (0..20).map(|_| Load::draw(&mut rng)).collect();
        assert!(drawn.iter().any(|load| *load != drawn[0]));
        for load in drawn {
            assert!(0 < load.producers && 0 < load.groups && 0 < load.consumers && 0 < load.pause_max_ms);
            let json = serde_json::to_string(&load).expect("serialisable");
            assert_eq!(serde_json::from_str::<Load>(&json).expect("readable"), load);
        }
        assert_eq!(serde_json::from_str::<Load>("{}").expect("readable"), Load::default());
    }
}
