//! For a site that lets nobody in: it asks its publisher what there is to take, and fetches it.
//!
//! ```text
//! GET  /v1/work?wait=S                      what is to be had, or was published; waits for it
//! GET  /v1/REPO/transactions/TXN/objects    the list           POST .../missing  the answer to it
//! POST /v1/REPO/transactions/TXN/bundle     names -> a bundle of them, or of the first that fit
//! POST /v1/REPO/transactions/TXN/kept       acknowledged       POST .../seen     its end was heard
//! ```
//! The same doors are gone through as where a publisher calls ([`crate::site`]); only who calls whom
//! is turned round. One publisher never waits for another. A failure is tried again after a pause.

mod client;

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use formats::warm::bundle::BUNDLE_TYPE;
use formats::warm::list::{LIST_TYPE, MISSING_TYPE, write_list};
use formats::warm::{Listed, Missing};
use serde::Deserialize;
use store::chain;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::refusal::Refusal;
use crate::site::{Published, Site, Visit};
use crate::trust::{Enrolled, ForEach};
use crate::vault::Outcome;
use client::{Client, Taken};

pub use client::PullError;

/// How long the publisher may keep a question for work open.
const WAIT_SECONDS: u64 = 50;
/// Before a publisher that failed is asked again.
const PAUSE: Duration = Duration::from_secs(5);
/// The same where it failed again and again.
const PAUSE_MAX: Duration = Duration::from_secs(120);
/// How often new enrolments are looked for.
const LOOK: Duration = Duration::from_secs(2);
/// Objects asked for in one bundle, and bytes of them.
const BUNDLE_OBJECTS: usize = 2048;
const BUNDLE_BYTES: u64 = 8 << 20;
/// Bundles of one transaction that brought nothing before it is left for later.
const FRUITLESS_MAX: u32 = 3;

/// What a publisher has for us.
#[derive(Debug, Default, Deserialize)]
struct Work {
    #[serde(default)]
    transactions: Vec<Offer>,
    #[serde(default)]
    published: Vec<Visible>,
    /// What came to nothing.
    #[serde(default)]
    given_up: Vec<Offer>,
}

#[derive(Debug, Deserialize)]
struct Offer {
    repo: String,
    txn: String,
}

#[derive(Debug, Deserialize)]
struct Visible {
    repo: String,
    txn: String,
    #[serde(flatten)]
    published: Published,
}

/// Asks every publisher that is to be asked, until `stop` says so.
pub async fn run(site: Arc<Site>, mut stop: watch::Receiver<bool>) {
    let mut asked = ForEach::default();
    let mut interval = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
        let gone: Vec<AbortHandle> = asked.follow(&site.trust(), |who| {
            let url = who.enrolment.publisher_url.clone()?;
            let task = tokio::spawn(ask(Arc::clone(&site), Arc::clone(who), url));
            Some(task.abort_handle())
        });
        gone.iter().for_each(AbortHandle::abort);
    }
    // a bundle on its way breaks off, and what came of it whole stays
    asked.into_all().iter().for_each(AbortHandle::abort);
}

/// Asks a publisher whether it knows us, without waiting for work; tells what time it has.
///
/// # Errors
/// [`PullError`].
pub async fn greet(who: &Enrolled, url: &str) -> Result<Option<SystemTime>, PullError> {
    let mut client = Client::connect(who, url, None).await?;
    client.get("/v1/work?wait=0").await?;
    Ok(client.their_time())
}

/// Asks one publisher for ever.
async fn ask(site: Arc<Site>, who: Arc<Enrolled>, url: String) {
    let mut pause = PAUSE;
    loop {
        match once(&site, &who, &url).await {
            Ok(()) => pause = PAUSE,
            Err(error) => {
                site.metrics.pull_failures.one();
                let publisher = who.enrolment.publisher.as_str();
                tracing::warn!(publisher, "{}; asked again in {pause:?}", chain(&error));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// One connection, for as long as it holds.
async fn once(site: &Arc<Site>, who: &Arc<Enrolled>, url: &str) -> Result<(), PullError> {
    let mut client = Client::connect(who, url, Some(&site.instance)).await?;
    loop {
        let work = client.get(&format!("/v1/work?wait={WAIT_SECONDS}")).await?;
        let work: Work = match work {
            Taken::Nothing => continue,
            Taken::Body(body) => client.json(body).await?,
        };
        for offer in &work.transactions {
            match site.visit(who, &offer.repo, &offer.txn) {
                Ok(visit) => take(site, &visit, &mut client).await?,
                Err(refusal) => {
                    // else it would be offered again at once
                    tracing::warn!("an offer that is not for us: {refusal}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        for visible in &work.published {
            if let Ok(visit) = site.visit(who, &visible.repo, &visible.txn) {
                let (here, published) = (Arc::clone(site), visible.published.clone());
                blocking(move || here.published(&visit, &published)).await?;
            }
            seen(&mut client, &visible.repo, &visible.txn).await?;
        }
        for over in &work.given_up {
            if let Ok(visit) = site.visit(who, &over.repo, &over.txn) {
                let here = Arc::clone(site);
                blocking(move || here.give_up(&visit)).await?;
            }
            seen(&mut client, &over.repo, &over.txn).await?;
        }
    }
}

/// Says that we heard how a transaction ended.
async fn seen(client: &mut Client, repo: &str, txn: &str) -> Result<(), PullError> {
    let path = format!("/v1/{repo}/transactions/{txn}/seen");
    client.post(&path, "application/json", Vec::new()).await?;
    Ok(())
}

/// Fetches one transaction's objects.
async fn take(site: &Arc<Site>, visit: &Visit, client: &mut Client) -> Result<(), PullError> {
    let path = format!("/v1/{}/transactions/{}", visit.key.repo, visit.key.txn);
    let Taken::Body(list) = client.get(&format!("{path}/objects")).await? else {
        return Ok(());
    };
    let (here, to) = (Arc::clone(site), visit.clone());
    let announced = move |list: &mut dyn io::Read| {
        // the names are needed again to ask for those that are absent
        let mut bytes = Vec::new();
        list.read_to_end(&mut bytes)
            .map_err(|e| Refusal::Malformed(format!("the list of objects: {e}")))?;
        let missing = here.announce(&to, bytes.as_slice())?;
        let wanted = absent(&bytes, &missing)?;
        Ok((missing, wanted))
    };
    let (missing, mut wanted) = client.fed(list, announced).await?;
    let answer = missing.render().map_err(Refusal::from)?;
    client
        .post(&format!("{path}/missing"), MISSING_TYPE, answer)
        .await?;
    wanted.reverse();
    let mut fruitless = 0;
    while !wanted.is_empty() {
        let asked = next(&mut wanted);
        let mut names = Vec::new();
        write_list(&mut names, asked.iter().copied()).map_err(Refusal::from)?;
        let bundle = client
            .post(&format!("{path}/bundle"), LIST_TYPE, names)
            .await?;
        let Taken::Body(bundle) = bundle else {
            return Ok(());
        };
        client::expect(&bundle, BUNDLE_TYPE)?;
        let (here, to, session) = (Arc::clone(site), visit.clone(), missing.session.clone());
        let taken = move |bundle: &mut dyn io::Read| here.bundle(&to, &session, bundle);
        let outcome = client.fed(bundle, taken).await?;
        if outcome.kept + outcome.present == 0 {
            fruitless += 1;
            if fruitless >= FRUITLESS_MAX {
                return Err(PullError::Fruitless(first_reason(&outcome)));
            }
        }
        let (here, to) = (Arc::clone(site), visit.clone());
        let (kept, rest) = blocking(move || sorted_out(&here, &to, asked)).await?;
        wanted.extend(rest);
        let mut names = Vec::new();
        write_list(&mut names, kept.into_iter()).map_err(Refusal::from)?;
        client
            .post(&format!("{path}/kept"), LIST_TYPE, names)
            .await?;
    }
    Ok(())
}

/// As many as go into one bundle.
fn next(wanted: &mut Vec<Listed>) -> Vec<Listed> {
    let (mut asked, mut bytes) = (Vec::new(), 0);
    while let Some(listed) = wanted.last() {
        bytes += listed.bytes;
        if asked.len() == BUNDLE_OBJECTS || (bytes > BUNDLE_BYTES && !asked.is_empty()) {
            break;
        }
        asked.extend(wanted.pop());
    }
    asked
}

/// Which of those that were asked for are there now: nothing else is acknowledged.
fn sorted_out(
    _site: &Site,
    visit: &Visit,
    asked: Vec<Listed>,
) -> Result<(Vec<Listed>, Vec<Listed>), Refusal> {
    let store = visit.repo.vault.store();
    let (mut kept, mut rest) = (Vec::new(), Vec::new());
    for listed in asked {
        match store.has(&listed.name)? {
            true => kept.push(listed),
            false => rest.push(listed),
        }
    }
    Ok((kept, rest))
}

fn first_reason(outcome: &Outcome) -> String {
    match outcome.refused.first() {
        Some(refused) => format!("{}: {}", refused.name, refused.error),
        None => "the bundle was empty".into(),
    }
}

fn absent(list: &[u8], missing: &Missing) -> Result<Vec<Listed>, Refusal> {
    let mut wanted = Vec::new();
    for (at, listed) in formats::warm::ListReader::new(list)?.enumerate() {
        let listed = listed?;
        if missing.absent.get(at as u32) {
            wanted.push(listed);
        }
    }
    Ok(wanted)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, PullError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(e) => Err(Refusal::Internal(e.to_string()).into()),
    }
}
