//! Entries after given ids, waiting for the first if asked to (XREAD).
//!
//! Served by the node that is asked. `$` is made concrete behind the read barrier, once; `+` stays what it is until there is
//! something to read, as in Redis.

use std::future::Future;

use millstream_streams::{EntryId, EntryPage, ReadFrom, ReadQuery, State, StreamName, StreamRead};
use tokio::time::Instant;

use super::{EntryBounds, Front, Result};
use crate::replica::{Freshness, Unavailable};

/// What a read found in one stream.
#[derive(Debug)]
pub(crate) struct StreamPage {
    pub(crate) stream: StreamName,
    /// Read on after this.
    pub(crate) next_after: EntryId,
    pub(crate) page: EntryPage,
}

/// `$` made concrete; `+` stays.
fn freeze(state: &State, StreamRead { stream, from }: StreamRead) -> StreamRead {
    let from = match from {
        ReadFrom::New => ReadFrom::After(state.last_id(&stream)),
        from => from,
    };
    StreamRead { stream, from }
}

impl Front {
    /// Reads at most `count` entries of each stream within `bounds`; waits until `deadline` for the first, after having said
    /// so by `waits`.
    pub(crate) async fn read(
        &self,
        freshness: Freshness,
        streams: Vec<StreamRead>,
        count: u32,
        bounds: EntryBounds,
        deadline: Option<Instant>,
        waits: impl Fn(),
    ) -> Result<Vec<StreamPage>> {
        self.barrier(freshness).await?;
        let positions: Vec<StreamRead> =
            self.replica.with_state(|state| streams.into_iter().map(|read| freeze(state, read)).collect());
        // Registered before the first look, so that no entry slips in between.
        let reader = match deadline {
            None => None,
            Some(_) => Some(self.replica.watch().reader(positions.iter().map(|position| &position.stream))?),
        };
        loop {
            let no_longer_ready = self.no_longer_ready();
            let found = self.look(&positions, count, bounds)?;
            let is_empty = found.iter().all(|stream| stream.page.entries.is_empty());
            let (Some(reader), Some(deadline)) = (reader.as_ref().filter(|_| is_empty), deadline) else {
                return Ok(found);
            };
            waits();
            tokio::select! {
                // The deadline first: wakes that bring nothing must not put it off.
                biased;
                () = tokio::time::sleep_until(deadline) => return Ok(found),
                () = reader.changed() => {}
                unavailable = no_longer_ready => return Err(unavailable.into()),
            }
        }
    }

    fn look(&self, positions: &[StreamRead], count: u32, bounds: EntryBounds) -> Result<Vec<StreamPage>> {
        let (afters, pages) = self.entries(bounds, |state| {
            let afters: Vec<EntryId> = positions.iter().map(|read| state.read_after(&read.stream, read.from)).collect();
            let plan = |(position, after): (&StreamRead, &EntryId)| {
                state.read(&ReadQuery { stream: position.stream.clone(), after: *after, count })
            };
            let plans = positions.iter().zip(&afters).map(plan).collect();
            Result::Ok((afters, plans))
        })?;
        let found = positions.iter().zip(afters).zip(pages).map(|((position, after), page)| StreamPage {
            stream: position.stream.clone(),
            next_after: page.entries.last().map_or(after, |last| last.id),
            page,
        });
        Ok(found.collect())
    }

    /// Resolves when the node begins to stop.
    fn no_longer_ready(&self) -> impl Future<Output = Unavailable> + Send + use<> {
        let replica = self.replica.clone();
        // Taken before the look at readiness, so that the change cannot come in between unseen.
        let mut changed = Box::pin(replica.leadership_changed());
        async move {
            while replica.is_ready() {
                changed.await;
                changed = Box::pin(replica.leadership_changed());
            }
            Unavailable::NotReady
        }
    }
}
