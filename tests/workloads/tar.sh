# A tree is unpacked from an archive, over another one.
tar -C "$1" --xattrs -cf "$TMPDIR/tree.tar" tree
tar --xattrs -xpf "$TMPDIR/tree.tar"
tar --xattrs -xpf "$TMPDIR/tree.tar"
touch -h -d '2024-05-06 07:08:09.123456789' .
