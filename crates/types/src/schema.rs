//! The API document's description of an enumeration whose variants are written as a table says.

/// Describes an enumeration by the words of its `ALL` and `as_str`. The derive does not know a `serde(rename)` that
/// comes from a macro, and would list the names of the variants.
macro_rules! schema_of_words {
    ($name:ident, $help:literal) => {
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .description(Some($help))
                    .enum_values(Some($name::ALL.iter().map(|it| it.as_str())))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {
            fn name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
        }
    };
}

pub(crate) use schema_of_words;
