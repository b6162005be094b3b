//! Enums that are single words in the record.

use std::fmt;

use serde::de::Visitor;

/// Declares an enum whose variants are words in JSON, with one more for a newer writer's words,
/// so that such a line stays readable.
macro_rules! words {
    (
        $(#[$doc:meta])*
        $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $(
                $(#[$variant_doc])*
                $variant,
            )+
            /// A word of a newer writer; which one, the file tells.
            Other,
        }

        impl $name {
            /// The word that stands in the record.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Other => "other",
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let known = [$(Self::$variant),+];
                let words = $crate::record::words::OneOf(&[$($word),+]);
                Ok(from.deserialize_str(words)?.map_or(Self::Other, |place| known[place]))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(super) use words;

/// Reads a word, and says which of these it is, if any. Derived, each enum had a reader of its own, of
/// a KiB and a half.
pub(super) struct OneOf(pub(super) &'static [&'static str]);

impl Visitor<'_> for OneOf {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a word")
    }

    fn visit_str<E>(self, word: &str) -> Result<Option<usize>, E> {
        Ok(self.0.iter().position(|known| *known == word))
    }
}
