//! Close a session and forget its replies.

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop};

/// Closes a session and forgets its replies.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CloseSession {
    /// The session.
    #[n(0)]
    pub session: u64,
}

/// The session is closed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SessionClosed {
    /// Whether it was open.
    #[n(0)]
    pub existed: bool,
}

impl Apply for CloseSession {
    type Reply = SessionClosed;

    fn apply(&self, context: &mut Context<'_>) -> Result<SessionClosed, Stop> {
        Ok(SessionClosed { existed: context.state.sessions.close(self.session) })
    }
}
