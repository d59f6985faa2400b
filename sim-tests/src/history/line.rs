//! Calls and answers as lines of the trace: contents as fingerprints.

use std::fmt;

use super::{Action, Outcome, Placed};
use crate::trace::fingerprint;

pub(super) struct Short<'a, T>(pub &'a T);

impl fmt::Display for Short<'_, Action> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for put in self.0.puts() {
            write!(f, "append {} {:016x}", put.stream, fingerprint(&put.content))?;
            if put.id.is_some() || put.key.is_some() || put.trim.is_some() {
                write!(f, " {:?} {:?} {:?}", put.id, put.key, put.trim)?;
            }
            write!(f, "; ")?;
        }
        match self.0 {
            Action::Append(_) => write!(f, "alone"),
            Action::Batch { mode, guard, is_refused, .. } => {
                write!(f, "together {mode:?} {guard:?}{}", if *is_refused { " with a refusal" } else { "" })
            }
            other => write!(f, "{other:?}"),
        }
    }
}

impl fmt::Display for Short<'_, Outcome> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Outcome::Appended(placed) => {
                write!(f, "appended")?;
                placed.iter().try_for_each(|placed| match placed {
                    Placed::At { id, trimmed: 0 } => write!(f, " {id}"),
                    Placed::At { id, trimmed } => write!(f, " {id} (-{trimmed})"),
                    Placed::Before(id) => write!(f, " before {id}"),
                    Placed::Refused(reason) => write!(f, " {reason}"),
                })
            }
            Outcome::Read { entries, more } => {
                write!(f, "read{}", if *more { " some of" } else { "" })?;
                entries.iter().try_for_each(|entry| write!(f, " {}:{:016x}", entry.id, fingerprint(&entry.content)))
            }
            Outcome::Delivered { entries, deleted } => {
                write!(f, "delivered")?;
                entries.iter().try_for_each(|entry| write!(f, " {}:{:016x}", entry.id, fingerprint(&entry.content)))?;
                if deleted.is_empty() { Ok(()) } else { write!(f, " gone {deleted:?}") }
            }
            other => write!(f, "{other:?}"),
        }
    }
}
