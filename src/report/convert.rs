//! The libraries' errors as failures: kind, hint, exit code.
//!
//! What an error *is* decides an exhaustive match where the variants differ for the user
//! (`CommitError`, `FreezeError`, `PublisherError`); all else goes by what is at the end of its
//! chain: a full disk, a bad signature, a missing file.

use std::error::Error;

use commit::records::RecordsError;
use commit::resign::ResignError;
use commit::rmfs::RmfsError;
use commit::rollback::RollbackError;
use commit::tags::TagsError;
use commit::{
    CommitError, GatewayError, HomeError, MkfsError, ObjectsError, PublisherError, ServerError,
};
use fsimpl::session::MountError;
use fsimpl::{AbortError, FreezeError, FsError, StageError};
use store::{HeadError, RepoError, StoreError};

use super::{Failure, Kind, kind_of_io, transaction_hint};

type Link<'e> = &'e (dyn Error + 'static);

/// An error and all it stems from, outermost first.
fn chain(error: Link<'_>) -> impl Iterator<Item = Link<'_>> {
    std::iter::successors(Some(error), |&link| within(link).or_else(|| link.source()))
}

/// What a transparent error stands for. Its `source` is that one's source: whoever follows sources
/// alone passes it by.
fn within(link: Link<'_>) -> Option<Link<'_>> {
    macro_rules! one_of {
        ($($variant:path),* $(,)?) => {
            $(if let Some($variant(inner)) = link.downcast_ref() {
                return Some(inner);
            })*
        };
    }
    one_of!(
        CommitError::TagName,
        CommitError::Objects,
        CommitError::Catalogs,
        CommitError::Publisher,
        CommitError::Txn,
        CommitError::Warm,
        MkfsError::Home,
        MkfsError::Catalogs,
        MkfsError::Records,
        PublisherError::Home,
        RecordsError::Home,
        ResignError::Manifest,
        ResignError::Publisher,
        RmfsError::Home,
        RmfsError::Busy,
        RollbackError::Store,
        RollbackError::Publisher,
        RollbackError::Txn,
        TagsError::Name,
        TagsError::Publisher,
    );
    None
}

/// The kind by the first link of the chain that decides it.
fn classify(error: Link<'_>) -> Kind {
    chain(error).find_map(kind_of_link).unwrap_or(Kind::Failed)
}

fn kind_of_link(link: &(dyn Error + 'static)) -> Option<Kind> {
    if let Some(error) = link.downcast_ref::<PublisherError>() {
        return kind_of_publisher(error);
    }
    if let Some(error) = link.downcast_ref::<HomeError>() {
        return match error {
            HomeError::Unknown { .. } | HomeError::BadName(_) => Some(Kind::Usage),
            _ => None,
        };
    }
    if let Some(error) = link.downcast_ref::<HeadError>() {
        return match error.is_expired() {
            true => Some(Kind::Expired),
            false => match error {
                HeadError::Read { .. } => None,
                _ => Some(Kind::Damaged),
            },
        };
    }
    if let Some(error) = link.downcast_ref::<StoreError>() {
        return kind_of_store(error);
    }
    if link.is::<store::CatalogFault>() || link.is::<store::ObjectFault>() {
        // a full cache directory is not a damaged repository
        let full = link.source().map(classify);
        return Some(match full {
            Some(kind @ (Kind::NoSpace | Kind::Denied)) => kind,
            _ => Kind::Damaged,
        });
    }
    if let Some(error) = link.downcast_ref::<FsError>() {
        return match error {
            FsError::NotFound => Some(Kind::NotFound),
            FsError::NoSpace | FsError::Quota => Some(Kind::NoSpace),
            FsError::Access | FsError::NotPermitted(_) => Some(Kind::Denied),
            _ => None,
        };
    }
    link.downcast_ref::<std::io::Error>().map(kind_of_io)
}

fn kind_of_publisher(error: &PublisherError) -> Option<Kind> {
    match error {
        PublisherError::Busy { .. }
        | PublisherError::Transaction { .. }
        | PublisherError::Unsteady { .. } => Some(Kind::Busy),
        PublisherError::Gateway { source, .. } | PublisherError::NotDone { source, .. } => {
            kind_of_gateway(source)
        }
        PublisherError::Server { source, .. } => kind_of_server(source),
        PublisherError::WhitelistExpired { .. } => Some(Kind::Expired),
        PublisherError::TagExists { .. } => Some(Kind::Failed),
        _ => None,
    }
}

fn kind_of_gateway(error: &GatewayError) -> Option<Kind> {
    match error {
        GatewayError::InvalidKey { .. } | GatewayError::PathNotAllowed { .. } => Some(Kind::Denied),
        _ => None,
    }
}

fn kind_of_server(error: &ServerError) -> Option<Kind> {
    match error {
        ServerError::NotOwner { .. } => Some(Kind::Denied),
        ServerError::ThroughGateway | ServerError::ExternalData => Some(Kind::Usage),
        ServerError::Union { source, .. } | ServerError::Apply { source, .. } => {
            Some(kind_of_io(source))
        }
        ServerError::Content { source, .. } => kind_of_store(source),
        _ => None,
    }
}

fn kind_of_store(error: &StoreError) -> Option<Kind> {
    match error {
        StoreError::NoSpace { .. } | StoreError::Quota { .. } => Some(Kind::NoSpace),
        StoreError::Denied { .. } | StoreError::ReadOnlyFilesystem { .. } => Some(Kind::Denied),
        StoreError::NotFound { .. }
        | StoreError::RootNotFound { .. }
        | StoreError::Corrupt { .. }
        | StoreError::TooLarge { .. } => Some(Kind::Damaged),
        StoreError::Io { source, .. } => Some(kind_of_io(source)),
        StoreError::S3(error) if error.is_out_of_space() => Some(Kind::NoSpace),
        StoreError::S3(error) if error.is_denied() => Some(Kind::Denied),
        _ => None,
    }
}

/// What to do, where the chain itself says it better than its kind.
fn hint_of_chain(error: Link<'_>) -> Option<String> {
    chain(error).find_map(|link| {
        if let Some(PublisherError::Transaction { repo, uid, since }) = link.downcast_ref() {
            return Some(transaction_hint(repo, *uid, *since));
        }
        let head = link.downcast_ref::<HeadError>()?;
        head.is_without_whitelist().then(|| {
            "`prepub resign REPO` makes a new whitelist, where the master key is".to_owned()
        })
    })
}

fn hint_for(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::NoSpace => Some("make room, then try again; what is staged is kept"),
        Kind::Expired => Some("`prepub resign REPO` renews the whitelist"),
        Kind::Damaged => Some("`prepub check REPO --data` lists all that is wrong"),
        Kind::Busy => Some("try again when the other one is done"),
        _ => None,
    }
}

/// An error as it is: its first sentence, its causes, the kind of its chain.
fn plain(error: &(dyn Error + 'static)) -> Failure {
    let kind = classify(error);
    let mut failure = Failure::new(kind, error.to_string());
    if let Some(source) = error.source() {
        failure = failure.because(source);
    }
    // a transparent error repeats its source's sentence
    failure.causes.dedup();
    if failure.causes.first() == Some(&failure.message) {
        failure.causes.remove(0);
    }
    let told = failure.message.contains('`') || failure.causes.iter().any(|c| c.contains('`'));
    match hint_of_chain(error).or(hint_for(kind).map(str::to_owned)) {
        Some(hint) if !told => failure.hint(hint),
        _ => failure,
    }
}

macro_rules! plainly {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                plain(&error)
            }
        })*
    };
}

plainly!(
    AbortError,
    FsError,
    HeadError,
    HomeError,
    PublisherError,
    StageError,
    StoreError,
    MkfsError,
    RepoError,
    ResignError,
    RmfsError,
    RollbackError,
    TagsError,
    commit::txn::TxnError,
    store::Injected,
);

impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        let kind = match &error {
            MountError::Missing(_) | MountError::NotADirectory(_) | MountError::NotEmpty(_) => {
                Kind::Usage
            }
            MountError::Busy(_) => Kind::OpenFiles,
            MountError::AlreadyMounted(_)
            | MountError::Occupied { .. }
            | MountError::Stale { .. }
            | MountError::Refused { .. }
            | MountError::Io { .. } => Kind::Failed,
        };
        Self {
            kind,
            ..plain(&error)
        }
    }
}

impl From<FreezeError> for Failure {
    fn from(error: FreezeError) -> Self {
        match &error {
            FreezeError::NotFound(path) => {
                Self::new(Kind::NotFound, format!("{path} is neither published nor staged"))
            }
            FreezeError::OpenFiles(files) => Self::new(Kind::OpenFiles, open_files(files.len()))
                .paths(files.iter().map(|f| match f.pid {
                    0 => f.path.to_string(),
                    pid => format!("{} (process {pid} {})", f.path, f.command),
                }))
                .hint("close them; or --wait longer; or --open-files skip leaves them out"),
            FreezeError::Unsealed(files) => {
                let full = files.iter().any(|f| f.no_space);
                let (kind, hint) = match full {
                    true => (
                        Kind::NoSpace,
                        "make room in the state directory, then commit again; what is staged is kept",
                    ),
                    false => (
                        Kind::Failed,
                        "write them again, or `prepub abort` their paths",
                    ),
                };
                Self::new(
                    kind,
                    "files could not be compressed and stored, so they cannot be published",
                )
                .paths(files.iter().map(|f| format!("{}: {}", f.path, f.reason)))
                .hint(hint)
            }
            FreezeError::Doubtful(files) => Self::new(
                Kind::Damaged,
                "files may have lost bytes when the machine stopped, and are not published like that",
            )
            .paths(files.iter().map(|f| format!("{}: {}", f.path, f.reason)))
            .hint("write them again (truncated first), remove or `prepub abort` them; --accept-unsynced publishes what is left"),
            FreezeError::ReplacedAncestor(path) => Self::failed(format!(
                "{path} replaced what was published there, so nothing below it can be published alone"
            ))
            .hint(format!("commit {path} itself")),
            FreezeError::Nested(outer, inner) => {
                Self::usage(format!("{inner} lies within {outer}; name {outer} alone"))
            }
            FreezeError::Frozen(_) => Self {
                kind: Kind::Busy,
                ..plain(&error)
            },
            FreezeError::Fs(_) => plain(&error),
        }
    }
}

fn site(site: &commit::warm::SiteOutcome) -> String {
    use commit::warm::SiteState;
    let state = match site.state {
        SiteState::Warm => "has everything",
        SiteState::Behind => "is behind",
        SiteState::Failed => "failed",
    };
    match &site.error {
        Some(error) => format!("{} {state}: it {error}", site.site),
        None => format!("{} {state}", site.site),
    }
}

fn open_files(count: usize) -> String {
    match count {
        1 => "a file is still open for writing".into(),
        n => format!("{n} files are still open for writing"),
    }
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        match &error {
            CommitError::Conflicts { conflicts, .. } => {
                let failure = Self::new(Kind::Conflict, error.to_string())
                    .paths(&conflicts.named)
                    .hint("abort these paths and do them again; or --on-conflict ours publishes the staged side");
                match conflicts.more {
                    0 => failure,
                    more => failure.paths([format!("and {more} more")]),
                }
            }
            CommitError::Limits { exceeded, .. } => Self::failed(error.to_string())
                .paths(exceeded)
                .hint("split large directories with .cvmfscatalog or .cvmfsdirtab, or raise the limits in server.conf"),
            CommitError::Publisher(PublisherError::Refused { named, more, .. }) => {
                let failure = Self::failed(error.to_string()).paths(named);
                match more {
                    0 => failure,
                    more => failure.paths([format!("and {more} more")]),
                }
            }
            CommitError::Publisher(PublisherError::Server { source, .. }) => match &**source {
                ServerError::Differs { named, more, .. } => {
                    let failure = plain(&error).paths(named);
                    match more {
                        0 => failure,
                        more => failure.paths([format!("and {more} more")]),
                    }
                }
                _ => plain(&error),
            },
            CommitError::TagName(_) => Self {
                kind: Kind::Usage,
                ..plain(&error)
            },
            CommitError::Objects(ObjectsError::NoRoom { .. }) => Self {
                kind: Kind::NoSpace,
                ..plain(&error)
            },
            CommitError::Quorum { sites, .. } => Self::new(Kind::Quorum, error.to_string())
                .paths(sites.iter().map(site))
                .hint("everything is staged as before; commit again when they are back, `prepub site revoke` those that are gone, or set quorum, deadline or commit_anyway in [warm]"),
            CommitError::Warm(_) => Self {
                kind: Kind::Quorum,
                ..plain(&error)
            },
            CommitError::WrongRepository { .. }
            | CommitError::CalledOff { .. }
            | CommitError::Objects(_)
            | CommitError::Catalogs(_)
            | CommitError::Compare { .. }
            | CommitError::Publisher(_)
            | CommitError::Txn(_) => plain(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrapped_decides() {
        let busy = || PublisherError::Busy {
            repo: "a.example.org".into(),
            what: "somebody publishes".into(),
        };
        let failures: [Failure; 7] = [
            busy().into(),
            CommitError::from(busy()).into(),
            TagsError::from(busy()).into(),
            RollbackError::from(busy()).into(),
            ResignError::from(busy()).into(),
            ResignError::from(TagsError::from(busy())).into(),
            RmfsError::from(busy()).into(),
        ];
        for failure in failures {
            assert_eq!(failure.kind, Kind::Busy, "{failure}");
            assert_eq!(failure.causes, Vec::<String>::new(), "it is said once");
        }
        let unknown = HomeError::BadName("..".into());
        let failure = Failure::from(CommitError::from(PublisherError::from(unknown)));
        assert_eq!(failure.kind, Kind::Usage);
    }
}
