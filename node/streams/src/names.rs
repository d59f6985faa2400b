//! Names of streams, groups and consumers. A name that exists is a good name: nobody checks again.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::limits::NAME_BYTES_MAX;

/// Why a text cannot be a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A stream needs a name of at least one byte.
    #[error("a stream name must not be empty")]
    Empty,
    /// The name is longer than [`NAME_BYTES_MAX`].
    #[error("a name of {bytes} bytes is longer than {NAME_BYTES_MAX}")]
    TooLong {
        /// How long it is, in bytes.
        bytes: usize,
    },
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, may_be_empty: $may_be_empty:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Accepts a text as a name.
            pub fn new(name: impl AsRef<str>) -> Result<Self, NameError> {
                let name = name.as_ref();
                if name.is_empty() && !$may_be_empty {
                    return Err(NameError::Empty);
                }
                if name.len() > NAME_BYTES_MAX {
                    return Err(NameError::TooLong { bytes: name.len() });
                }
                Ok(Self(Arc::from(name)))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                Self::new(name)
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
                e.str(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
                Self::new(d.str()?).map_err(decode::Error::message)
            }
        }
    };
}

name! {
    /// The name of a stream: UTF-8, 1 to [`NAME_BYTES_MAX`] bytes, ordered by bytes. Cheap to clone.
    StreamName, may_be_empty: false
}

name! {
    /// The name of a consumer group: UTF-8, 0 to [`NAME_BYTES_MAX`] bytes, ordered by bytes. Cheap to clone.
    GroupName, may_be_empty: true
}

name! {
    /// The name of a consumer: UTF-8, 0 to [`NAME_BYTES_MAX`] bytes, ordered by bytes. Cheap to clone.
    ConsumerName, may_be_empty: true
}
