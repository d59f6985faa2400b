//! Open a session, in which requests are safe to retry.

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop};

/// Opens a session. Sessions that have been idle for long expire by the way.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OpenSession {}

/// The session is open.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SessionOpened {
    /// Its id: the log index of the command, so it is never reused.
    #[n(0)]
    pub session: u64,
}

impl Apply for OpenSession {
    type Reply = SessionOpened;

    fn apply(&self, context: &mut Context<'_>) -> Result<SessionOpened, Stop> {
        context.state.sessions.open(context.index, context.now_ms);
        Ok(SessionOpened { session: context.index })
    }
}
