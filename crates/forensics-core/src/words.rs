//! Macros for types that are written as a word or a short text.

/// Implements `Display` for enums that serialise as a word.
macro_rules! display_as_in_json {
    ($($word:ty),*) => { $(
        impl std::fmt::Display for $word {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                // A formatter is a `Serializer` that writes the name of the variant.
                serde::Serialize::serialize(self, f)
            }
        }
    )* };
}

/// Implements `Serialize` and `Deserialize` by `Display` and `FromStr`.
macro_rules! json_as_displayed {
    ($text:ty) => {
        impl serde::Serialize for $text {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $text {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
