# Writes the prompts of a folder into one C file: cmake -DFOLDER=... -DOUT=... -P embed.cmake
# Each text is an array of bytes that ends with 0, so that nothing in it needs an escape.
file(GLOB texts ${FOLDER}/*.md)
list(SORT texts)
set(arrays "")
set(rows "")

function(embed_file path name)
    file(READ ${path} bytes HEX)
    string(REGEX REPLACE "(................................)" "\\1\n" bytes "${bytes}")
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
    set(arrays "${arrays}static const unsigned char ${name}[] = {\n${bytes}0x00};\n" PARENT_SCOPE)
endfunction()

foreach(path IN LISTS texts)
    get_filename_component(name ${path} NAME_WE)
    if(name STREQUAL "README")
        continue()
    endif()
    embed_file(${path} ${name}_text)
    set(schema "NULL")
    if(EXISTS ${FOLDER}/${name}.json)
        embed_file(${FOLDER}/${name}.json ${name}_schema)
        set(schema "(const char *)${name}_schema")
    endif()
    string(APPEND rows "    {\"${name}\", (const char *)${name}_text, ${schema}},\n")
endforeach()

file(WRITE ${OUT}.new "/* Made by src/agents/prompts/embed.cmake. */\n#include <stddef.h>\n\n#include \"agents/prompt.h\"\n\n"
    "${arrays}\nconst struct prompt prompt_texts[] = {\n${rows}    {NULL, NULL, NULL},\n};\n")
file(RENAME ${OUT}.new ${OUT})
