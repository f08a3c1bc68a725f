//! Links lead somewhere, and every page is reached from the README.

use std::collections::BTreeSet;
use std::path::Path;

use super::page::{Page, page, pages};
use crate::support::workspace_root;

/// The file that a link of a page means; none if it leads out of the project.
fn file_of(page: &Page, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with('#') {
        return None;
    }
    let link = link.split('#').next().unwrap_or_default();
    let dir = Path::new(&page.name).parent().unwrap();
    Some(dir.join(link).display().to_string())
}

#[test]
fn every_link_leads_to_a_file() {
    for page in pages() {
        for link in page.links() {
            if let Some(file) = file_of(&page, &link) {
                assert!(
                    workspace_root().join(&file).exists(),
                    "{}: {link}",
                    page.name
                );
            }
        }
    }
}

#[test]
fn every_page_is_linked_from_the_readme() {
    let readme = page("README.md");
    let linked: BTreeSet<String> = readme
        .links()
        .iter()
        .filter_map(|link| file_of(&readme, link))
        .collect();
    for page in pages() {
        assert!(
            page.name == "README.md" || linked.contains(&page.name),
            "{} is not",
            page.name
        );
    }
}

/// It says what it is for before it says anything else.
#[test]
fn every_page_begins_with_its_name_and_what_it_is_for() {
    for page in pages() {
        let mut lines = page.text.lines();
        assert!(
            lines.next().is_some_and(|line| line.starts_with("# ")),
            "{}",
            page.name
        );
        assert_eq!(lines.next(), Some(""), "{}", page.name);
        let first = lines.next().unwrap_or_default();
        assert!(
            first.starts_with(char::is_alphanumeric) || first.starts_with(['`', '*']),
            "{}: {first}",
            page.name
        );
    }
}
