//! A lease, and what it takes to make a revision visible under it.

use std::path::Path;
use std::time::SystemTime;

use formats::hash::{Algorithm, Hash};
use formats::history::{Head as TagHead, HistoryWriter, Tag};
use formats::manifest::Manifest;
use formats::object::{ObjectKind, ObjectName};
use formats::reflog::{RefKind, Reference};
use formats::server_conf::Params;
use formats::trust::{sign_manifest, verify_listed};
use store::{Head, Owner, failpoint};

use super::locks::Locks;
use super::{MANIFEST, Stratum0, seconds};
use crate::head;
use crate::home::{HomeError, KeyFile};
use crate::publisher::{Lease, NewRevision, Publisher, PublisherError, Record};
use crate::records::{self, RecordsError, Tags};
use crate::virtual_dir;

/// The right to publish: locks, and the head they protect.
pub(crate) struct Stratum0Lease<'a> {
    pub(super) publisher: &'a Stratum0,
    pub(super) head: Head,
    pub(super) locks: Locks,
}

/// What else happens to the tags when a revision is published.
pub(crate) enum TagEdit<'t> {
    /// The usual: a tag if one is wanted, and the trunk tags follow.
    Publish,
    /// Nothing: there is no new tag database.
    Keep,
    /// Something else.
    Other(&'t mut dyn FnMut(&mut HistoryWriter, &TagHead) -> TagResult),
}

type TagResult = Result<(), formats::history::HistoryError>;

/// A revision as tags know it.
fn tag_head(revision: &NewRevision) -> TagHead {
    TagHead {
        hash: revision.root_hash,
        size: revision.root_bytes,
        revision: revision.revision,
        timestamp: revision.timestamp,
    }
}

/// The usual tags: outdated automatic ones go, the revision gets the one that is wanted.
fn name_revision(tags: &mut HistoryWriter, revision: &NewRevision, params: &Params) -> TagResult {
    if let Some(timespan) = params.auto_tag_timespan {
        tags.remove_auto_tags(timespan.before(revision.timestamp))?;
    }
    let name = match &revision.tag {
        Some(name) => Some(name.clone()),
        None if params.auto_tag => Some(formats::history::auto_tag_name(
            revision.timestamp,
            |name| matches!(tags.tag(name), Ok(Some(_))),
        )),
        None => None,
    };
    let Some(name) = name else {
        return Ok(());
    };
    let head = tag_head(revision);
    tags.insert(&Tag {
        name,
        hash: head.hash,
        size: head.size,
        revision: head.revision,
        timestamp: head.timestamp,
        description: revision.message.clone(),
        branch: String::new(),
    })
}

impl Stratum0Lease<'_> {
    /// The tag database after this publication, and the revision that becomes visible.
    fn edit_tags(
        &self,
        revision: NewRevision,
        params: &Params,
        edit: TagEdit<'_>,
        work: &Path,
    ) -> Result<(NewRevision, Option<Hash>), PublisherError> {
        let publisher = self.publisher;
        let storage = publisher.storage.as_ref();
        let published = self.head.manifest().history;
        let bad = |source| publisher.records(source);
        let bad_tags = |source| bad(RecordsError::History(source));
        let open = || Tags::open(storage, &publisher.home.name, published, work).map_err(bad);
        let (revision, tags) = match edit {
            TagEdit::Keep => return Ok((revision, published)),
            TagEdit::Other(edit) => {
                let mut tags = open()?;
                edit(&mut tags.writer, &tag_head(&revision)).map_err(bad_tags)?;
                (revision, tags)
            }
            TagEdit::Publish => {
                let mut tags = open()?;
                name_revision(&mut tags.writer, &revision, params).map_err(bad_tags)?;
                let all = tags.writer.tags().map_err(bad_tags)?;
                let shown = self.show_tags(&revision, params, &all, work)?;
                let visible = shown.unwrap_or(revision);
                let head = tag_head(&visible);
                tags.writer.set_trunk(&head).map_err(bad_tags)?;
                (visible, tags)
            }
        };
        let history = tags.store(storage, params.algorithm).map_err(bad)?;
        Ok((revision, Some(history)))
    }

    /// The revision on top of `revision` that shows the tags, if there has to be one.
    fn show_tags(
        &self,
        revision: &NewRevision,
        params: &Params,
        tags: &[Tag],
        work: &Path,
    ) -> Result<Option<NewRevision>, PublisherError> {
        let publisher = self.publisher;
        let work = work.join("virtual");
        std::fs::create_dir(&work).map_err(|source| HomeError::Write {
            path: work.clone(),
            source,
        })?;
        let show = virtual_dir::Show {
            repository: &publisher.repository,
            storage: publisher.storage.as_ref(),
            params,
            published: self.head.manifest().root_catalog,
            tags,
            work: &work,
        };
        virtual_dir::on_top(revision, &show).map_err(|source| PublisherError::VirtualDir {
            repo: publisher.home.name.clone(),
            source: Box::new(source),
        })
    }

    fn append_reflog(
        &self,
        references: &[(Option<Hash>, RefKind)],
        published: u64,
        algorithm: Algorithm,
        work: &Path,
    ) -> Result<Hash, PublisherError> {
        let reference = |(hash, kind): &(Option<Hash>, RefKind)| {
            Some(Reference {
                hash: (*hash)?,
                kind: *kind,
                timestamp: published.cast_signed(),
            })
        };
        let references: Vec<Reference> = references.iter().filter_map(reference).collect();
        records::append_reflog(
            self.publisher.storage.as_ref(),
            &self.publisher.home.spool_dir,
            algorithm,
            self.head.manifest().reflog,
            &references,
            work,
        )
        .map_err(|e| self.publisher.records(e))
    }

    /// Publishes `revision`, which may be the published one with other tags.
    pub(crate) fn publish(
        self,
        revision: NewRevision,
        edit: TagEdit<'_>,
        now: SystemTime,
        record: Record<'_>,
    ) -> Result<NewRevision, PublisherError> {
        let publisher = self.publisher;
        let storage = publisher.storage.as_ref();
        let params = publisher.params()?;
        let work = publisher.work()?;
        let certificate = publisher.home.certificate()?;
        let key = publisher.home.private_key(KeyFile::Key)?;
        certificate
            .verify_key(&key)
            .and_then(|()| verify_listed(self.head.whitelist(), &certificate))
            .map_err(publisher.sign_error())?;
        let asked = revision.root_hash;
        let (revision, history) = self.edit_tags(revision, &params, edit, work.path())?;
        let algorithm = params.algorithm;
        let certificate_hash = records::store_bytes(
            storage,
            algorithm,
            ObjectKind::Certificate,
            certificate.pem(),
        )
        .map_err(|e| publisher.records(e))?;
        failpoint::pass("stratum0::before_sync")?;
        storage.sync().map_err(publisher.storage_error("sync"))?;

        let before = self.head.manifest();
        // clients refuse a manifest that is older than the one they have, whatever our clock does
        let published = seconds(now).max(before.published);
        // the new tag names the one that was asked for
        let below = (asked != revision.root_hash).then_some(asked);
        let references = [
            (below, RefKind::Catalog),
            (Some(revision.root_hash), RefKind::Catalog),
            (Some(certificate_hash), RefKind::Certificate),
            (history, RefKind::History),
            (before.meta_info, RefKind::MetaInfo),
        ];
        let reflog = self.append_reflog(&references, published, algorithm, work.path())?;
        failpoint::pass("stratum0::after_reflog")?;

        let mut manifest = Manifest {
            root_catalog: revision.root_hash,
            catalog_bytes: revision.root_bytes,
            ttl_seconds: revision.ttl_seconds,
            revision: revision.revision,
            garbage_collectable: params.garbage_collection,
            alt_paths: params.alt_paths,
            micro_catalog: before.micro_catalog,
            name: publisher.home.name.clone(),
            certificate: Some(certificate_hash),
            history,
            published,
            meta_info: before.meta_info,
            reflog: Some(reflog),
        };
        manifest.alt_paths = params.alt_paths && publisher.place_alt_links(&manifest)?;
        let bytes = sign_manifest(manifest, algorithm, &key)
            .map_err(publisher.sign_error())?
            .to_bytes()
            .map_err(|source| PublisherError::Manifest {
                repo: publisher.home.name.clone(),
                source,
            })?;
        self.locks.still_alone()?;
        record(&revision).map_err(PublisherError::Record)?;
        failpoint::pass("stratum0::before_manifest")?;
        storage
            .write_root(MANIFEST, &bytes)
            .map_err(publisher.storage_error("publish in"))?;
        failpoint::pass("stratum0::after_manifest")?;
        self.locks.published(&revision.root_hash);
        Ok(revision)
    }
}

impl Lease for Stratum0Lease<'_> {
    fn head(&self) -> &Head {
        &self.head
    }

    fn check_tag(&self, name: &str) -> Result<(), PublisherError> {
        let publisher = self.publisher;
        head::require_free_tag(&publisher.repository, &self.head, name, &publisher.work_dir)
    }

    fn submit(
        self: Box<Self>,
        revision: NewRevision,
        now: SystemTime,
        record: Record<'_>,
    ) -> Result<NewRevision, PublisherError> {
        self.publish(revision, TagEdit::Publish, now, record)
    }
}

/// Lets the storage's owner have a link in it.
fn give_at(dir: &Path, link: &Path) -> std::io::Result<()> {
    let dir = std::fs::File::open(dir)?;
    match Owner::of(&dir)? {
        Some(owner) => Ok(owner.take_at(&dir, link)?),
        None => Ok(()),
    }
}

impl Stratum0 {
    /// Makes root catalog, certificate, tags and meta information reachable by their other names,
    /// which clients of protected repositories use. False where the storage cannot.
    fn place_alt_links(&self, manifest: &Manifest) -> Result<bool, PublisherError> {
        let Some(dir) = self.storage.local_dir() else {
            return Ok(false);
        };
        let objects = [
            (Some(manifest.root_catalog), ObjectKind::Catalog),
            (manifest.certificate, ObjectKind::Certificate),
            (manifest.history, ObjectKind::History),
            (manifest.meta_info, ObjectKind::MetaInfo),
        ];
        for (hash, kind) in objects {
            let Some(hash) = hash else {
                continue;
            };
            let name = ObjectName::new(hash, kind);
            let link = dir.join(format!(".cvmfsalt-{name}"));
            match std::os::unix::fs::symlink(name.storage_path(), &link) {
                Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(HomeError::Write { path: link, source }.into());
                }
                _ => {
                    give_at(dir, &link).map_err(|source| HomeError::Write { path: link, source })?
                }
            }
        }
        Ok(true)
    }
}
