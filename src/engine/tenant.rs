//! In whose name requests wait.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The name under which requests take turns. The default has no name, and is a tenant like any other.
///
/// ```
/// use tollgate::engine::Tenant;
///
/// let tenant: Tenant = "search".into();
/// assert_eq!(&*tenant, "search");
/// assert_eq!(Tenant::from(""), Tenant::default());
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(
    /// `None` for the empty name: most programs have one tenant, and need not count who holds its name.
    Option<Arc<str>>,
);

impl Deref for Tenant {
    type Target = str;

    fn deref(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

impl From<&str> for Tenant {
    fn from(name: &str) -> Self {
        Self((!name.is_empty()).then(|| name.into()))
    }
}

impl From<String> for Tenant {
    fn from(name: String) -> Self {
        name.as_str().into()
    }
}

impl From<Arc<str>> for Tenant {
    fn from(name: Arc<str>) -> Self {
        Self((!name.is_empty()).then_some(name))
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
