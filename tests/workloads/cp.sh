# A tree is copied, and copied again within the place.
cp -a "$1/tree/." .
cp -a lib lib-again
touch -h -d '2024-05-06 07:08:09.123456789' .
