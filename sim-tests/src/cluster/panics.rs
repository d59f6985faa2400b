//! The words of the first panic.
//!
//! turmoil reports a panic of a detached task as a panic of its own, without the words that matter.

use std::sync::{Mutex, PoisonError};

static FIRST: Mutex<Option<String>> = Mutex::new(None);

/// From now on the first panic is kept.
pub(super) fn keep_first() {
    std::panic::set_hook(Box::new(|panic| {
        let mut first = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| {
            // The backtrace is empty unless RUST_BACKTRACE asks for it.
            let problem = format!("{panic}\n{}", std::backtrace::Backtrace::capture());
            // Said at once: a panic in a destructor may end the process before anyone asks for the first one.
            eprintln!("{problem}");
            problem
        });
    }));
}

/// The first panic.
pub(super) fn first() -> String {
    let first = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
    first.clone().unwrap_or_else(|| "of unknown cause".into())
}
