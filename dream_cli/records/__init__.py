"""The data that every stage reads and writes: records, their images, and the files and streams that hold them."""
