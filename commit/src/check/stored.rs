//! Rule 32: every object's stored bytes hash to its name.

use store::{StoreError, verify};

use super::{Report, Subject, Watch, chain};

pub(super) fn check(subject: &Subject<'_>, report: &mut Report, watch: &dyn Watch) {
    let store = subject.store();
    report.objects = 0;
    let listed = store.for_each(&mut |name, _| {
        match verify(store, &name) {
            Ok(bytes) => report.bytes_hashed += bytes,
            Err(error) => report.find(32, name, chain(&error)),
        }
        report.objects += 1;
        if report.objects.is_multiple_of(256) {
            watch.checked(report.catalogs, report.rows, report.objects);
        }
        Ok::<(), StoreError>(())
    });
    if let Err(error) = listed {
        report.find(
            32,
            "storage",
            format!("cannot be listed: {}", chain(&error)),
        );
    }
}
