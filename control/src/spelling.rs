//! Enums of the API: written in snake_case, read in snake_case, PascalCase and SCREAMING_SNAKE.

/// Declares such an enum: a variant, its snake_case name, and what it means.
macro_rules! spelled_enum {
    ($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$variant_meta:meta])* $variant:ident = $snake:literal,)+
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)+
        }

        impl $name {
            /// Every variant, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in snake_case.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $snake,)+ }
            }

            /// The variant that is spelled so.
            pub fn spelled(text: &str) -> Option<Self> {
                $(if text == $snake
                    || text == stringify!($variant)
                    || (text.eq_ignore_ascii_case($snake) && !text.contains(char::is_lowercase))
                {
                    return Some(Self::$variant);
                })+
                None
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.pad(self.name())
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                let names = utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::Type::String)
                    .enum_values(Some(Self::ALL.iter().map(|value| value.name())));
                utoipa::openapi::RefOr::T(names.into())
            }
        }

        impl utoipa::ToSchema for $name {}

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::spelled(&text).ok_or_else(|| {
                    serde::de::Error::unknown_variant(&text, &[$($snake,)+])
                })
            }
        }
    };
}

pub(crate) use spelled_enum;

#[cfg(test)]
mod tests {
    spelled_enum! {
        /// For the test.
        pub enum Sample {
            /// Two words.
            BlueGreen = "blue_green",
            /// One.
            Rolling = "rolling",
        }
    }

    #[test]
    fn three_spellings_are_read_and_one_is_written() {
        for text in ["blue_green", "BlueGreen", "BLUE_GREEN"] {
            let read: Sample = serde_json::from_str(&format!("{text:?}")).unwrap();
            assert_eq!(read, Sample::BlueGreen, "{text}");
            assert_eq!(serde_json::to_string(&read).unwrap(), "\"blue_green\"");
        }
        for text in ["blueGreen", "Blue_Green", "bluegreen", "BLUEGREEN", "blue-green", ""] {
            assert_eq!(Sample::spelled(text), None, "{text}");
        }
        assert_eq!(Sample::spelled("ROLLING"), Some(Sample::Rolling));
        assert_eq!(Sample::ALL.len(), 2);
        assert_eq!(Sample::Rolling.to_string(), "rolling");
    }
}
