//! Calls into an engine, whose panics are errors here.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::StoreError;

/// Calls an engine of the given name. What it panics about and what it finds damaged is the same to us.
pub(super) fn guarded<T>(engine: &str, call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    // Nothing of ours is left half done by a panic; what the engine has left so is not used again.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Err(StoreError::Io(error))) => Err(from_io(error)),
        Ok(result) => result,
        Err(panic) => {
            let said = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(StoreError::corrupt(format!("{engine} panicked: {said}")))
        }
    }
}

/// A file that ends too early, or whose content makes no sense, is damage and not the operating system's fault.
fn from_io(error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => StoreError::corrupt(error.to_string()),
        _ => StoreError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_damage() {
        let error = guarded("sled", || -> Result<(), StoreError> { panic!("as sled does") }).expect_err("fails");
        assert!(matches!(error, StoreError::Corrupt { what } if what.contains("as sled does")));
    }

    #[test]
    fn a_short_file_is_damage_and_a_full_disk_is_not() {
        let fails =
            |kind: io::ErrorKind| guarded("redb", || -> Result<(), StoreError> { Err(io::Error::from(kind).into()) });
        assert!(matches!(fails(io::ErrorKind::UnexpectedEof), Err(StoreError::Corrupt { .. })));
        assert!(matches!(fails(io::ErrorKind::StorageFull), Err(StoreError::Io(_))));
    }
}
