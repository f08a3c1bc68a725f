# A tree is mirrored twice; the second time there is nothing to do.
rsync -aHAX --delete "$1/tree/" .
again=$(rsync -aHAX --delete --itemize-changes "$1/tree/" .)
[ -z "$again" ] || { echo "the second run transferred: $again"; exit 1; }
# what it does about a file that changed, one that went and one that came
mkdir "$TMPDIR/changed.$$"
cp -a "$1/tree" "$TMPDIR/changed.$$/"
echo more >>"$TMPDIR/changed.$$/tree/lib/file-7"
rm "$TMPDIR/changed.$$/tree/lib/file-8"
cp "$TMPDIR/changed.$$/tree/lib/file-9" "$TMPDIR/changed.$$/tree/lib/new"
find "$TMPDIR/changed.$$/tree" -newermt 2026-01-01 ! -newermt 2050-01-01 -exec touch -h -d '2024-06-06 07:08:09.5' {} +
rsync -aHAX --delete --inplace "$TMPDIR/changed.$$/tree/" .
rm -r "$TMPDIR/changed.$$"
