//! Whom to ask: the endpoints given, and the leader as far as it is known.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::Error;

/// How long a leader's address that could not be reached is not believed when a *successful* call names it. Without
/// this, a client outside the cluster's network, for whom only forwarding works, would try the leader before every
/// call.
const AVOID: Duration = Duration::from_secs(30);

/// An address as `host:port`.
pub(crate) type Address = Arc<str>;

/// The endpoints in turn, and the leader.
pub(crate) struct Endpoints {
    list: Vec<Address>,
    // A std mutex: it is held for a few comparisons and never across an await.
    state: Mutex<State>,
}

struct State {
    leader: Option<Address>,
    /// Position in the list of the endpoint to ask when no leader is known.
    turn: usize,
    /// Addresses that could not be reached, and until when to remember that. As many as there are nodes.
    avoided: BTreeMap<Address, Instant>,
}

impl Endpoints {
    /// Checks each endpoint; at least one is needed.
    pub(crate) fn new(endpoints: &[String]) -> Result<Self, Error> {
        let list = endpoints.iter().map(|endpoint| parse(endpoint)).collect::<Result<Vec<_>, _>>()?;
        if list.is_empty() {
            return Err(Error::InvalidEndpoint { endpoint: String::new(), problem: "at least one endpoint is needed" });
        }
        Ok(Self { list, state: Mutex::new(State { leader: None, turn: 0, avoided: BTreeMap::new() }) })
    }

    pub(crate) fn list(&self) -> &[Address] {
        &self.list
    }

    pub(crate) fn leader(&self) -> Option<Address> {
        self.state().leader.clone()
    }

    /// The leader if it is known, else the endpoint whose turn it is. `any_node` passes over the leader: the call can
    /// be answered anywhere, and the endpoint may be nearer.
    pub(crate) fn pick(&self, any_node: bool) -> Address {
        let state = self.state();
        match &state.leader {
            Some(leader) if !any_node => leader.clone(),
            _ => self.list[state.turn % self.list.len()].clone(),
        }
    }

    /// A node refused a call and named the leader: the next attempt has to go there.
    pub(crate) fn redirect(&self, leader: &str) {
        self.state().leader = Some(leader.into());
    }

    /// A node served a call and named the leader: going there saves a hop, if it can be reached.
    pub(crate) fn suggest(&self, leader: &str) {
        let mut state = self.state();
        if state.leader.as_deref() == Some(leader) {
            return;
        }
        let avoided = state.avoided.get(leader).is_some_and(|until| Instant::now() < *until);
        if !avoided {
            state.leader = Some(leader.into());
        }
    }

    /// `address` did not serve a call: ask another one next. Does nothing if others have already moved on, so many
    /// calls that fail together move on once.
    pub(crate) fn move_on(&self, address: &Address) {
        let mut state = self.state();
        if state.leader.as_ref() == Some(address) {
            state.leader = None;
        }
        if &self.list[state.turn % self.list.len()] == address {
            state.turn = (state.turn + 1) % self.list.len();
        }
    }

    /// `address` could not be reached.
    pub(crate) fn avoid(&self, address: &Address) {
        let now = Instant::now();
        let mut state = self.state();
        state.avoided.retain(|_, until| now < *until);
        state.avoided.insert(address.clone(), now + AVOID);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts `host:port` and `http://host:port`.
pub(crate) fn parse(endpoint: &str) -> Result<Address, Error> {
    let invalid = |problem| Error::InvalidEndpoint { endpoint: endpoint.to_owned(), problem };
    if endpoint.starts_with("https://") {
        return Err(invalid("TLS is not supported"));
    }
    let address = endpoint.strip_prefix("http://").unwrap_or(endpoint).trim_end_matches('/');
    let authority: http::uri::Authority = address.parse().map_err(|_| invalid("expected host:port"))?;
    match authority.port_u16() {
        Some(port) if port != 0 && !authority.host().is_empty() && !address.contains('@') => Ok(address.into()),
        _ => Err(invalid("expected host:port")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_host_and_port() {
        for (given, expected) in [("a:1", "a:1"), ("http://a:1/", "a:1"), ("[::1]:7420", "[::1]:7420")] {
            assert_eq!(parse(given).as_deref(), Ok(expected), "{given}");
        }
        for given in ["", "a", "a:", ":1", "a:0", "a:70000", "https://a:1", "u@a:1", "a:1/x", "a b:1"] {
            assert!(parse(given).is_err(), "{given}");
        }
        assert!(Endpoints::new(&[]).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_leader_is_asked_first_and_failures_move_on_once() {
        let endpoints = Endpoints::new(&["a:1".into(), "b:1".into()]).expect("valid");
        let first = endpoints.pick(false);
        assert_eq!(&*first, "a:1");
        endpoints.move_on(&first);
        endpoints.move_on(&first);
        assert_eq!(&*endpoints.pick(false), "b:1");

        endpoints.suggest("c:1");
        assert_eq!(&*endpoints.pick(false), "c:1");
        assert_eq!(&*endpoints.pick(true), "b:1");

        let leader = endpoints.pick(false);
        endpoints.move_on(&leader);
        endpoints.avoid(&leader);
        endpoints.suggest("c:1");
        assert_eq!(&*endpoints.pick(false), "b:1", "an unreachable leader is not believed for a while");
        endpoints.redirect("c:1");
        assert_eq!(&*endpoints.pick(false), "c:1", "but a redirection leaves no choice");
        endpoints.move_on(&leader);
        tokio::time::advance(AVOID).await;
        endpoints.suggest("c:1");
        assert_eq!(&*endpoints.pick(false), "c:1");
    }
}
