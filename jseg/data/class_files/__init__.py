"""Files of class names, colours and ids in the forms that people have, read as rows."""
