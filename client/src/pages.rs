//! Lists that come by the page, as one stream.

use std::collections::VecDeque;
use std::future::Future;

use futures::Stream;

use crate::Error;

/// The items of all pages, each page fetched when the one before is consumed. `fetch` returns a page and what to ask for
/// next; `None` after the last. Ends after the first error.
pub(crate) fn items<Q, T, F>(first: Q, fetch: impl Fn(Q) -> F + Send) -> impl Stream<Item = Result<T, Error>> + Send
where
    Q: Send,
    T: Send,
    F: Future<Output = Result<(Vec<T>, Option<Q>), Error>> + Send,
{
    let state = (Some(first), VecDeque::new(), fetch);
    futures::stream::try_unfold(state, |(mut next, mut page, fetch)| async move {
        loop {
            if let Some(item) = page.pop_front() {
                return Ok(Some((item, (next, page, fetch))));
            }
            let Some(query) = next.take() else { return Ok(None) };
            let (items, following) = fetch(query).await?;
            (page, next) = (items.into(), following);
        }
    })
}
